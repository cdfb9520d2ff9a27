"""Backups: a whole copy of the database as of one instant, made while it is served, that says of itself what it is.

What is sealed in it stays sealed; the keys are elsewhere. Since the copy knows that it is one, no server takes it for
the database itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import cysqlite
import peewee
import psycopg
from playhouse.cysqlite_ext import CySqliteDatabase
from psycopg.conninfo import conninfo_to_dict

from server.storage.engine import DatabaseUnusable, hold
from server.storage.keyring import sync_folder
from server.storage.restored import BACKUP

COMING = ".coming"
RESTORING = ".restoring"
LOGS = ("-wal",)
SQLITE_BEGINS = b"SQLite format 3\0"
BUSY_SECONDS = 60.0
WHERE = "SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid = to_regclass('counters')"


class BackupFailed(DatabaseUnusable):
    """No backup was made, or none was restored; the text says why."""


@contextlib.contextmanager
def coming(file: Path) -> Iterator[Path]:
    """A file for its owner alone that takes its place when it is whole. Raises BackupFailed, OSError."""
    if file.exists():
        raise BackupFailed(f"{file} exists; it is not overwritten")
    unfinished = file.with_name(file.name + COMING)
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield unfinished
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        unfinished.rename(file)
        sync_folder(file.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def mark(table: str) -> str:
    """The statement by which a copy says of itself that it is one, and from when."""
    now_us = round(time.time() * 1_000_000)
    insert = f"INSERT INTO {table} (name, value) VALUES ('{BACKUP}', {now_us})"  # noqa: S608 (no word is a user's)
    return f"{insert} ON CONFLICT DO NOTHING"


# --- SQLite


def copy_sqlite(database: Path, file: Path) -> None:
    """`VACUUM INTO`: one read transaction, beside which everybody goes on writing. Raises BackupFailed."""
    source = CySqliteDatabase(str(database), timeout=BUSY_SECONDS)
    copy = CySqliteDatabase(str(file), pragmas={"synchronous": "full"})
    try:
        with source.connection_context():
            source.execute_sql("VACUUM INTO ?", (str(file),))
        with copy.connection_context():
            copy.execute_sql(mark("counters"))
    except (peewee.PeeweeException, cysqlite.Error) as error:
        raise BackupFailed(f"{database}: {error}") from error


@contextlib.contextmanager
def beside_sqlite(file: Path, database: Path) -> Iterator[Path]:
    """A copy of a backup beside the database, whole and marked as a backup whatever made it; gone at the end.

    The database is held meanwhile. Raises DatabaseInUse, BackupFailed, OSError.
    """
    with file.open("rb") as reader:
        if reader.read(len(SQLITE_BEGINS)) != SQLITE_BEGINS:
            raise BackupFailed(f"{file} is no backup of a SQLite database")
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy = database.with_name(database.name + RESTORING)
    lock = hold(database)
    try:
        for suffix in LOGS:  # a file that was moved aside has a log, without which it is older than it was
            if (log := file.with_name(file.name + suffix)).exists():
                copy_private(log, copy.with_name(copy.name + suffix))
        copy_private(file, copy)
        check_and_mark(file, copy)
        yield copy
    finally:
        for suffix in ("-shm", "-journal", *LOGS, ""):
            copy.with_name(copy.name + suffix).unlink(missing_ok=True)
        os.close(lock)


def copy_private(file: Path, copy: Path) -> None:
    copy.unlink(missing_ok=True)
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    shutil.copyfile(file, copy)


def check_and_mark(file: Path, copy: Path) -> None:
    """Raises BackupFailed unless the copy of `file` is whole, and a database of the service."""
    opened = CySqliteDatabase(str(copy), pragmas={"synchronous": "full"})
    try:
        with opened.connection_context():
            opened.execute_sql("PRAGMA journal_mode = delete").fetchone()
            [told] = opened.execute_sql("PRAGMA quick_check(1)").fetchone()
            if told != "ok":
                raise BackupFailed(f"{file} is damaged: {told}")
            opened.execute_sql(mark("counters"))
    except (peewee.PeeweeException, cysqlite.Error) as error:
        raise BackupFailed(f"{file} is damaged, or no database of this service: {error}") from error


def swap_sqlite(copy: Path, database: Path) -> Iterator[Path]:
    """Puts the copy in the place of the database; where that was moved to is told before."""
    aside = move_aside(database)
    if aside is not None:
        yield aside
    copy.rename(database)
    sync_folder(database.parent)


def move_aside(database: Path) -> Path | None:
    """The write-ahead log goes with its database: left behind, it would be taken for the backup's."""
    if not database.exists():
        return None
    aside = database.with_name(f"{database.name}.{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    if aside.exists():
        raise BackupFailed(f"{aside} exists; a second later it will not be in the way")
    for suffix in ("-shm", "-wal", ""):
        left = database.with_name(database.name + suffix)
        if left.exists():
            left.rename(aside.with_name(aside.name + suffix))
    return aside


# --- PostgreSQL


def dump_postgres(url: str, file: Path) -> None:
    """pg_dump, one snapshot, beside which everybody goes on writing. Raises BackupFailed."""
    try:
        with psycopg.connect(url) as connection:
            found = connection.execute(WHERE).fetchone()
    except psycopg.Error as error:
        raise BackupFailed(f"the database does not answer: {error}") from error
    if found is None:
        raise BackupFailed("there is no schema to back up; run: python -m server --config FILE migrate")
    table = found[0] if "." in found[0] else f"public.{found[0]}"
    statement = mark(table)
    run("pg_dump", url, "--no-owner", "--no-privileges", f"--file={file}")
    with file.open("a") as dump:
        dump.write(f"\n{statement};\n")


def place_postgres(file: Path, url: str) -> None:
    """Brings a dump into an empty database, whole or not at all, marked as a backup whatever made it.

    Raises BackupFailed, OSError.
    """
    with file.open("rb") as reader:
        if reader.read(len(SQLITE_BEGINS)) == SQLITE_BEGINS:
            raise BackupFailed(f"{file} is a backup of a SQLite database")
    how = ("--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1")
    run("psql", url, *how, f"--file={file}", f"--command=RESET search_path; {mark('counters')}")


def run(program: str, url: str, *words: str) -> None:
    """A client program of PostgreSQL. It is told of the database by its environment: a password is not for `ps`."""
    where = shutil.which(program)
    if where is None:
        raise BackupFailed(f"{program} is not here (Debian: apt-get install postgresql-client)")
    done = subprocess.run(  # noqa: S603 (no word of it comes from outside)
        [where, "--no-password", *words],
        env={**os.environ, **environment(url)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BackupFailed(f"{program}: {done.stderr.strip()}")


def environment(url: str) -> Mapping[str, str]:
    """libpq's environment variables that say what a URL says."""
    names = {option.keyword.decode(): option.envvar for option in psycopg.pq.Conninfo.get_defaults()}
    said = {names[keyword]: str(value) for keyword, value in conninfo_to_dict(url).items() if names.get(keyword)}
    return {name.decode(): value for name, value in said.items() if name is not None}
