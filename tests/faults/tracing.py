"""strace on a running process: a signal or an error at an exact system call, and a record of what was called."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

CALLS = "trace=pwrite64,fsync,fdatasync,connect,getsockopt,read,write,rename,unlink"
PATIENCE = 30.0
SHOWN = 16
"""Of each buffer that the record shows: enough to tell an answer, too little for a token."""


def strace() -> str:
    """Where it is. Without it nothing is proved: a failure in CI, elsewhere a skip that says so."""
    found = shutil.which("strace")
    if found is None:
        missing = "no strace here (Debian: apt-get install strace)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def command_line(record: Path, rules: Sequence[str]) -> list[str]:
    words = [strace(), "-f", "-s", str(SHOWN), "-o", str(record), "-e", CALLS]
    for rule in rules:
        words += ["-e", f"inject={rule}"]
    return words


def traced(command: Sequence[str], record: Path, rule: str, path: Path) -> int:
    """Runs a command to its end, under a rule for calls on `path` alone; its exit code."""
    line = [*command_line(record, [rule]), "-P", str(path), *command]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # without strace the command would go on
        raise


class Trace:
    """Attached to all threads of a process when the constructor returns. A rule reads `call:signal=SIGKILL:when=1`.

    `when` counts the calls of each thread by itself. A signal comes on entering: the call is not carried out.
    """

    def __init__(self, pid: int, record: Path, *rules: str) -> None:
        command = [*command_line(record, rules), "-p", str(pid)]
        self._record = record
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        first = self._process.stderr.readline().decode()
        if "attached" not in first:
            self.stop()
            raise AssertionError(f"strace did not attach: {first}")

    def answers_read(self) -> int:
        """How many good answers of the platform the process has read."""
        return self._record.read_text(errors="replace").count('"HTTP/1.1 200 OK')

    def stop(self) -> None:
        """Lets go of the process, if that lives."""
        self._process.terminate()
        self._process.communicate(timeout=PATIENCE)
