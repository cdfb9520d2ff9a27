"""A throw-away PostgreSQL cluster, from the server binaries that are on the machine."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg

from sandbox.ports import free_port

FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c listen_addresses=127.0.0.1"

MEMORY = Path("/dev/shm")
ROOM = 2 * 1024**3
"""Bytes; a run has some sixty databases of 8 MB left at its end, and another run may be beside it."""


class NoPostgres(Exception):
    """There are no server binaries here."""


def binaries() -> Path:
    """Debian keeps them out of PATH, a folder per version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    in_path = shutil.which("postgres")
    if in_path is None:
        raise NoPostgres("no PostgreSQL server binaries here (Debian: apt-get install postgresql)")
    return Path(in_path).parent


def in_memory() -> Path | None:
    """A folder in memory, if there is one with room: to make and delete a database is three hundred files each."""
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    return MEMORY if roomy else None


@contextlib.contextmanager
def cluster(settings: str = FAST) -> Iterator[str]:
    """A running cluster; the URL of it, without a database. It refuses root, so as root it runs as `postgres`."""
    folder = Path(tempfile.mkdtemp(prefix="accounts-postgres-", dir=in_memory()))
    become = []
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        # Not by `user=`: Python then forks, and gRPC's fork handlers crash the child while its threads are at work.
        become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    port = free_port()
    where = binaries()
    data = folder / "data"

    def run(program: str, *words: str | Path) -> None:
        subprocess.run(
            [*become, where / program, "-D", data, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            cwd=folder,
            check=True,
        )

    run("initdb", "-U", "accounts", "-A", "trust", "-N", "--locale=C", "-E", "UTF8")
    options = f"{settings} -p {port} -k {folder}"
    run("pg_ctl", "-l", folder / "log", "-o", options, "-w", "start")
    try:
        yield f"postgresql://accounts@127.0.0.1:{port}"
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def fresh_database(url: str, template: str = "template1") -> str:
    """Makes a database in the cluster, empty or a copy of another that nobody uses; its URL."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return f"{url}/{name}"


def drop_database(url: str) -> None:
    """Deletes a database that nobody needs any more."""
    cluster_url, _, name = url.rpartition("/")
    with psycopg.connect(f"{cluster_url}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
