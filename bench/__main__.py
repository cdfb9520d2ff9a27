"""`make bench`: measures the service beside a bare server in one run, and prints the ratios with their limits.

Figures of shared machines are noisy, so each pair is measured in turns and the median of the turns' ratios is told,
with their range.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from synposter.accounts.v1 import account_service_pb2 as pb

from bench.fill import PER_PROFILE, account_id, fill
from bench.load import Result
from sandbox.local import Local, free_port

SERVICE = "/synposter.accounts.v1.AccountService"
TURNS = 5
CONNECTIONS, STREAMS = 4, 16
console = Console()


@dataclass
class Row:
    """One line of the report; `holds` is None where the figure has no limit."""

    name: str
    figure: str
    limit: str
    holds: bool | None


@contextlib.contextmanager
def deployment(accounts: int) -> Iterator[Local]:
    """A service over `accounts` accounts, not started yet; no platform is reached."""
    with tempfile.TemporaryDirectory() as name, Path(name, "server.log").open("wb") as log:
        local = Local(
            Path(name), ports={part: free_port() for part in ("grpc", "http", "sandbox")}, level="warning", log=log
        )
        local.prepare()
        if accounts:
            fill(Path(name, "accounts.db"), accounts)
        try:
            yield local
        finally:
            local.stop()


@contextlib.contextmanager
def process(module: str) -> Iterator[int]:
    """A server of the bench in a process of its own; its port, which it prints."""
    server = subprocess.Popen([sys.executable, "-m", module], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.terminate()
        server.wait()


def load(port: int, method: str, key: str, messages: list[bytes], seconds: float) -> Result:
    """One run of the load generator, in a process of its own."""
    task = {
        "port": port, "method": method, "key": key, "messages": [message.hex() for message in messages],
        "seconds": seconds, "connections": CONNECTIONS, "streams": STREAMS,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"], input=json.dumps(task), capture_output=True, text=True, check=True
    )
    result = Result(**json.loads(done.stdout))
    assert not result.bad, f"{result.bad} calls of {method} failed"
    return result


def h2load(port: int, method: str, key: str, message: bytes, seconds: float) -> float:
    """Debian's nghttp2-client."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\x00" + len(message).to_bytes(4) + message)
        body.flush()
        headers = ("content-type: application/grpc", "te: trailers", f"authorization: Bearer {key}")
        command = [
            "h2load",
            "-D",
            str(max(1, round(seconds))),
            "-c",
            str(CONNECTIONS),
            "-m",
            str(STREAMS),
            "-d",
            body.name,
        ]
        for header in headers:
            command += ["-H", header]
        command.append(f"http://127.0.0.1:{port}{method}")
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"([\d.]+) req/s", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


class Target:
    """A method under load."""

    def __init__(self, port: int, method: str, key: str, messages: list[bytes]) -> None:
        self.task = (port, method, key, messages)
        self.runs = 0

    def rate(self, seconds: float) -> float:
        """Calls a second, by h2load where it is installed: our own generator holds a bare server back by a fifth.

        h2load counts HTTP statuses only and sends one message, so our own first makes sure that the answers are good,
        and each run takes another message.
        """
        port, method, key, messages = self.task
        if shutil.which("h2load") is None:
            return load(port, method, key, messages, seconds).rate
        load(port, method, key, messages, 0.2)
        self.runs += 1
        return h2load(port, method, key, messages[self.runs % len(messages)], seconds)


def get_account(local: Local, accounts: int) -> Target:
    rng = random.Random(7)
    messages = [pb.GetAccountRequest(id=account_id(rng.randrange(accounts))).SerializeToString() for _ in range(5000)]
    return Target(int(local.target.split(":")[1]), f"{SERVICE}/GetAccount", local.api_key, messages)


def list_accounts(local: Local, accounts: int) -> Target:
    rng = random.Random(7)
    messages = [
        pb.ListAccountsRequest(profile_id=f"acme/{rng.randrange(accounts // PER_PROFILE)}").SerializeToString()
        for _ in range(2000)
    ]
    return Target(int(local.target.split(":")[1]), f"{SERVICE}/ListAccounts", local.api_key, messages)


def side_by_side(one: Target, other: Target, seconds: float) -> tuple[list[float], list[float]]:
    """Rates of both, measured in turns."""
    one.rate(0.5), other.rate(0.5)
    pairs = [(one.rate(seconds), other.rate(seconds)) for _ in range(TURNS)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def told(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"


def reads(seconds: float) -> list[Row]:
    with deployment(100_000) as local, process("bench.noop") as port:
        local.start_server()
        bare = Target(port, "/bench.Bare/Noop", local.api_key, [b""])
        get = get_account(local, 100_000)
        gets, bares = side_by_side(get, bare, seconds)
        ratios = [a / b for a, b in zip(gets, bares, strict=True)]
        lists, gets_again = side_by_side(list_accounts(local, 100_000), get, seconds)
        costs = [b / a for a, b in zip(lists, gets_again, strict=True)]
    return [
        Row("bare no-op, calls/s", f"{statistics.median(bares):,.0f}", "", None),
        Row("GetAccount over 100,000, calls/s", f"{statistics.median(gets):,.0f}", "", None),
        Row("GetAccount / bare no-op", told(ratios), ">= 0.45", statistics.median(ratios) >= 0.45),
        Row("ListAccounts of 50, in GetAccounts", told(costs), "<= 6", statistics.median(costs) <= 6),
    ]


def size(seconds: float) -> list[Row]:
    with deployment(1_000) as small, deployment(1_000_000) as large:
        small.start_server(), large.start_server()
        large_rates, small_rates = side_by_side(get_account(large, 1_000_000), get_account(small, 1_000), seconds)
        ratios = [a / b for a, b in zip(large_rates, small_rates, strict=True)]
        memory = resident(small.pid("server")), resident(large.pid("server"))
        large.kill("server")
        tick = asyncio.run(idle_tick(large))
    return [
        Row("GetAccount, 1,000,000 accounts / 1,000", told(ratios), ">= 0.9", statistics.median(ratios) >= 0.9),
        Row("tick that finds nothing due in 1,000,000", f"{tick * 1000:.2f} ms", "< 2 ms", tick < 0.002),
        Row("memory under load, 1,000 and 1,000,000", f"{memory[0]:.0f} and {memory[1]:.0f} MB", "", None),
    ]


async def idle_tick(local: Local) -> float:
    """Seconds that one round of all jobs takes; the median of many."""
    from server.app import App, load_settings  # noqa: PLC0415 (imports the whole server)

    app = App(load_settings(local.config_file), run_jobs=False)
    await app.start()
    times = []
    for _ in range(200):
        began = time.perf_counter()
        for name in app.platforms:
            await app.refresher.work_off(name)
            await app.revoker.work_off(name)
            await app.identities.work_off(name)
        times.append(time.perf_counter() - began)
    await app.stop()
    return statistics.median(times)


def refresh(_: float) -> list[Row]:
    ratios, rates = [], []
    with process("bench.token_endpoint") as port, deployment(0) as local:
        text = local.config_file.read_text()
        endpoint = f'token_endpoint = "http://127.0.0.1:{port}/token"'
        local.config_file.write_text(re.sub('token_endpoint = ".*"', endpoint, text))
        for _turn in range(3):
            bare = measured("bench.refresh", "bare", str(port))
            rates.append(measured("bench.refresh", "ours", str(local.config_file)))
            ratios.append(rates[-1] / bare)
    return [
        Row("refreshes/s, the whole path on SQLite", f"{statistics.median(rates):,.0f}", "", None),
        Row("refreshes / bare oauthlib + aiohttp", told(ratios), "", None),
    ]


def measured(module: str, *words: str) -> float:
    """Runs a bench of its own process; the rate that it prints."""
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, check=True)
    return float(done.stdout)


def start() -> list[Row]:
    with deployment(1_000) as local:
        times, memory = [], 0.0
        for _ in range(TURNS):
            began = time.perf_counter()
            local.start_server()
            times.append(time.perf_counter() - began)
            time.sleep(2)
            memory = resident(local.pid("server"))
            local.kill("server")
    median = statistics.median(times)
    return [
        Row(
            "cold start to answering",
            f"{median:.2f} s  ({min(times):.2f} to {max(times):.2f})",
            "< 1.5 s",
            median < 1.5,
        ),
        Row("idle memory", f"{memory:.0f} MB", "< 125 MB", memory < 125),
    ]


def resident(pid: int) -> float:
    """Megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise LookupError(pid)


PARTS = {"start": lambda seconds: start(), "reads": reads, "size": size, "refresh": refresh}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one turn (default: 3)")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    table = Table("measured", "figure", "limit", "", title="Connected Accounts, side by side")
    missed = False
    for part in arguments.parts or PARTS:
        with console.status(f"measuring {part}"):
            rows = PARTS[part](arguments.seconds)
        for row in rows:
            missed |= row.holds is False
            table.add_row(row.name, row.figure, row.limit, {True: "ok", False: "missed", None: ""}[row.holds])
    console.print(table)
    sys.exit(missed)


if __name__ == "__main__":
    main()
