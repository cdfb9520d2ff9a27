"""The systemd units: sound, and the service as closed as it can be."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from server.app import FAREWELL_SECONDS
from server.config.settings import Server
from server.storage.engine import BUSY_SECONDS
from server.storage.postgres import CANCEL_SECONDS, CLOSE_SECONDS

DEPLOY = Path(__file__).parents[2] / "deploy"
MOST_EXPOSED = "20"
"""Tenths of what systemd calls the exposure of a service: 0 is closed, 100 open."""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with what they start in a place that exists here."""
    for unit in (*DEPLOY.glob("*.service"), *DEPLOY.glob("*.timer")):
        there = unit.read_text()
        for program in ("/opt/accounts/.venv/bin/python", "/opt/accounts/deploy/backup"):
            there = there.replace(f"ExecStart={program}", "ExecStart=/bin/true")
        (tmp_path / unit.name).write_text(there)
    return tmp_path


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        assert not os.environ.get("CI"), "systemd-analyze is missing (Debian: apt-get install systemd)"
        pytest.skip("systemd-analyze is not here (Debian: apt-get install systemd)")
    return found


def test_the_units_are_sound(analyze: str, units: Path) -> None:
    done = subprocess.run([analyze, "verify", *units.iterdir()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_is_as_closed_as_can_be(analyze: str, units: Path) -> None:
    command = [analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", units / "accounts.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_who_deploys_it_waits_longer_than_a_stop_takes_whatever_the_database_does() -> None:
    drain: float = Server.model_fields["drain_timeout"].default.total_seconds()
    most = drain + FAREWELL_SECONDS + max(BUSY_SECONDS, CLOSE_SECONDS + CANCEL_SECONDS)
    for name, told in (("accounts.service", r"TimeoutStopSec=(\d+)s"), ("Containerfile", r"--stop-timeout (\d+)")):
        [seconds] = re.findall(told, (DEPLOY / name).read_text())
        assert int(seconds) >= most + 10, "what is cut off still goes to the journal"
