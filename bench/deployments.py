"""What is measured: services over many accounts, on either database, and the bench's own servers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.fill import fill
from sandbox.local import Local
from sandbox.ports import free_port
from tests.postgres import cluster, fresh_database

DURABLE = "-c listen_addresses=127.0.0.1"
"""PostgreSQL as it comes: a commit is on disk when it returns."""


@contextlib.contextmanager
def deployment(accounts: int, postgres: str | None = None) -> Iterator[Local]:
    """A service over `accounts` accounts, not started yet, on SQLite or in a new database of a PostgreSQL cluster.

    No platform is reached, and none is spared by a rate.
    """
    with tempfile.TemporaryDirectory() as name, Path(name, "server.log").open("wb") as log:
        local = Local(
            Path(name), ports={part: free_port() for part in ("grpc", "http", "sandbox")}, level="warning", log=log
        )
        local.write_files()
        configure(local, "[platforms.twitter]", "[platforms.twitter]\nrefresh_rate = 100000")
        database: Path | str = Path(name, "accounts.db")
        if postgres is not None:
            database = fresh_database(postgres)
            configure(local, "sqlite:///accounts.db", database)
            configure(local, "[refresh]", '[refresh]\njournal = "journal"')
        local.prepare()
        if accounts:
            fill(database, accounts)
        try:
            yield local
        finally:
            local.stop()


def configure(local: Local, old: str, new: str) -> None:
    text = local.config_file.read_text()
    assert old in text, old
    local.config_file.write_text(text.replace(old, new))


def durable_postgres() -> contextlib.AbstractContextManager[str]:
    """A throw-away cluster; its URL. Raises NoPostgres where there are no server binaries."""
    return cluster(DURABLE)


@contextlib.contextmanager
def process(module: str, *words: str) -> Iterator[int]:
    """A server of the bench in a process of its own; its port, which it prints."""
    server = subprocess.Popen([sys.executable, "-m", module, *words], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.terminate()
        server.wait()


def printed(module: str, *words: str) -> str:
    """Runs a part of the bench in a process of its own; what it prints."""
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def resident(pid: int) -> float:
    """Megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise LookupError(pid)


def cpu_seconds(pid: int) -> float:
    """What a process has used of one core, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
