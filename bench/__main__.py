"""`make bench`: measures the service beside a bare server in one run, and prints the ratios with their limits.

Figures of shared machines are noisy, so each pair is measured in turns and the median of the turns' ratios is told,
with their range.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from rich.console import Console
from rich.table import Table

from bench.acting import acting
from bench.deployments import deployment, resident
from bench.reads import reads, size
from bench.refreshes import refreshes, steady
from bench.report import Row
from bench.target import TURNS
from bench.watch import watch

console = Console()


def start(_: float) -> list[Row]:
    with deployment(1_000) as local:
        times, memory = [], 0.0
        for _turn in range(TURNS):
            began = time.perf_counter()
            local.start_server()
            times.append(time.perf_counter() - began)
            time.sleep(2)
            memory = resident(local.pid("server"))
            local.kill("server")
    median = statistics.median(times)
    told = f"{median:.2f} s  ({min(times):.2f} to {max(times):.2f})"
    return [
        Row("cold start to answering", told, "< 1.5 s", median < 1.5),
        Row("idle memory", f"{memory:.0f} MB", "< 125 MB", memory < 125),
    ]


PARTS = {
    "start": start,
    "reads": reads,
    "size": size,
    "refresh": refreshes,
    "steady": steady,
    "acting": acting,
    "watch": watch,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one turn (default: 3)")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    missed = False
    for part in arguments.parts or PARTS:
        with console.status(f"measuring {part}"):
            rows = PARTS[part](arguments.seconds)
        missed |= any(row.holds is False for row in rows)
        console.print(table(part, rows))
    sys.exit(missed)


def table(part: str, rows: list[Row]) -> Table:
    """What was measured of one part; each is shown as soon as it is there."""
    made = Table("measured", "figure", "limit", "", title=f"{part}, side by side", min_width=80)
    for row in rows:
        made.add_row(row.name, row.figure, row.limit, {True: "ok", False: "missed", None: ""}[row.holds])
    return made


if __name__ == "__main__":
    main()
