"""Disks that are full or broken, for a running process: a small file system that is filled, and injected errors."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SMALL = "8m"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of eight megabytes in memory."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL},mode=700", "tmpfs", folder], check=False)
    if mounted.returncode:
        refuse("a file system cannot be mounted here; the same is shown by injected errors")
    try:
        yield folder
    finally:
        # Lazily: a process that a failed test has left may still hold a file.
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Not a byte is free on the disk meanwhile."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def failing_calls(pid: int, *injections: str) -> Iterator[None]:
    """System calls of a running process fail meanwhile; an injection is strace's: `pwrite64:error=ENOSPC`."""
    strace = shutil.which("strace")
    if strace is None:
        refuse("there is no strace here (Debian: apt-get install strace)")
    words = [f"--inject={injection}" for injection in injections]
    names = ",".join(injection.partition(":")[0] for injection in injections)
    tracer = subprocess.Popen(
        [str(strace), "--quiet=all", "-f", "-o", os.devnull, f"--trace={names}", *words, "-p", str(pid)]
    )
    try:
        deadline = time.monotonic() + 10
        while not all(is_traced(thread) for thread in Path(f"/proc/{pid}/task").iterdir()):
            assert tracer.poll() is None, "strace cannot attach to it"
            assert time.monotonic() < deadline, "strace does not attach to it"
            time.sleep(0.01)
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(timeout=10)


def is_traced(thread: Path) -> bool:
    status = (thread / "status").read_text()
    return "TracerPid:\t0" not in status


def refuse(why: str) -> None:
    """In CI what cannot be tested is a failure."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)
