"""The demo: the whole story, as `make demo` plays it."""

import subprocess
import sys
from pathlib import Path

CHAPTERS = (
    "Two accounts on one profile",
    "A post on @ada's behalf",
    "A refresh, watched as it happens",
    "A handle renamed at the platform",
    "A grant taken back at the platform",
    "A reconnect",
    "A revoke",
)


def test_the_demo_plays_the_whole_story_in_under_a_minute() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.demo"], cwd=Path(__file__).parents[2],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in CHAPTERS] == list(CHAPTERS)
    assert [line.split()[1] for line in lines if line.startswith("  watched:")] == [
        "CONNECTED", "CONNECTED", "IDENTITY_CHANGED", "EXPIRED", "RECONNECTED", "REVOKED",
    ]  # fmt: skip
    assert lines[-1].startswith("That was all of it")
