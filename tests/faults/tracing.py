"""strace on a running process: a signal or an error at an exact system call, and a record of what was called."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

CALLS = "trace=pwrite64,fsync,fdatasync,connect,getsockopt,read,write,rename,unlink"
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


def traced(command: Sequence[str], record: Path, *rules: str) -> int:
    """Runs a command to its end; its exit code. Raises subprocess.TimeoutExpired, having ended it."""
    done = subprocess.run([*command_line(record, rules), *command], capture_output=True, check=False, timeout=60)
    return done.returncode


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
        """It ends with the process that it watches, else it lets go of it."""
        self._process.terminate()
        self._process.communicate(timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
