"""Servers and sandboxes as forks of one process that has read their modules: reading them is most of a start.

Tests marked `exec` start them as operators do.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

MODULES = ("server", "sandbox")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["server.commands.main", "server.app", "sandbox.server"])


class Forked:
    """What tests use of a subprocess.Popen."""

    def __init__(self, words: Sequence[str], output: str) -> None:
        self._process = FORKS.Process(target=run, args=(words, output, str(Path.cwd()), dict(os.environ)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def launch(command: list[str], output: IO[bytes] | None) -> Forked | subprocess.Popen[bytes]:
    """`python -m` of a module of ours as a fork, where it writes into a file; any other command as it is."""
    if output is None or command[:2] != [sys.executable, "-m"] or command[2] not in MODULES:
        return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    return Forked(command[2:], str(output.name))


def run(words: Sequence[str], output: str, folder: str, environ: Mapping[str, str]) -> None:
    """In the fork: what `python -m` with these words would do there."""
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(file, standard)
    os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
