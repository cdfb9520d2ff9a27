"""Fuzzes one target for so many seconds (`make fuzz`): atheris mutates inputs and keeps those that reach new code.

An input that breaks a promise is written to `crashes/<target>/`, where the test suite finds it from then on.
"""

import sys
from pathlib import Path

import atheris

from tests.fuzz.targets import TARGETS

HERE = Path(__file__).parent
FOUND = Path(".fuzz")
"""Inputs that reached new code, for the next run to go on from."""


def main(name: str, seconds: str) -> None:
    atheris.enabled_hooks.add("RegEx")
    atheris.enabled_hooks.add("str")
    atheris.instrument_all()  # the standard library too: it does much of the parsing
    target = TARGETS[name]
    seeds, crashes, found = FOUND / f"{name}-seeds", HERE / "crashes" / name, FOUND / name
    for folder in (seeds, crashes, found):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (seeds / str(number)).write_bytes(seed)
    limits = [
        f"-max_total_time={seconds}",
        "-max_len=9000",
        "-timeout=20",
        "-rss_limit_mb=1024",
        "-report_slow_units=60",
    ]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={crashes}/", str(found), str(seeds)], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
