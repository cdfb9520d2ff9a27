"""The engine: where SQL runs. Reads run inline on the event loop; writes run on one thread, grouped into commits.

A read costs 10 to 35 us, less than a hop to a thread would. Writers that wait together share one commit, hence one
sync to disk. This is SQLite's; `postgres` has the other. The store above does not know.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cysqlite
import peewee
from playhouse.cysqlite_ext import CySqliteDatabase

from server.accounts.errors import StoreUnavailable
from server.storage.clock import Clock, SteadyClock

T = TypeVar("T")
Work = Callable[[Any], T]
Job = tuple[Work[Any], "asyncio.Future[Any]"]

OLDEST_SAFE_SQLITE = (3, 51, 3)
"""Before it, two connections that write and checkpoint can lose commits (the WAL-reset bug)."""

GROUP = 64
# 16 MB of cache a connection: 64 made no difference to a million accounts, the system caches the file too.
# secure_delete: what is deleted is overwritten with zeros.
PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": "full",
    "foreign_keys": 1,
    "cache_size": -16_000,
    "secure_delete": 1,
}
BUSY_SECONDS = 5
MOST_WAITING = 10_000
"""Writes that wait for the disk, beyond which no more is taken: one that hangs for hours must not fill the memory."""
SURVEYS = 2
"""Threads for reads that may go through whole tables, and for nothing else: who begins many of them, and gives up on
them, delays no other."""


class DatabaseUnusable(Exception):
    """The database cannot be opened; the text says why, without a password."""


class DatabaseInUse(DatabaseUnusable):
    """Another server holds this database file."""


class Engine(Protocol):
    """What the store needs of a database: somewhere to read, somewhere to write, and its time."""

    database: Any

    @property
    def clock(self) -> Clock: ...

    @property
    def locks_rows(self) -> bool:
        """Whether others may write at the same time, so that rows have to be locked."""

    async def read(self, work: Work[T]) -> T: ...

    async def survey(self, work: Work[T]) -> T:
        """A read that may take long: it holds up nothing else."""

    async def write(self, work: Work[T]) -> T: ...

    async def wipe(self) -> None:
        """Lets go of old copies of what was changed, as far as this is a matter of the engine."""

    def close(self) -> None: ...


class SteadyPlans(CySqliteDatabase):
    """Plans a statement once, whatever values it is run with.

    Otherwise SQLite, built with ENABLE_STAT4, parses a prepared statement again whenever a value changes that an index
    is looked up by: 40 to 60 us of the 100 that a read took (measured). `WHERE` of a partial index is thereby matched
    by words alone (see `schema.NOT_READY`). https://sqlite.org/c3ref/c_dbconfig_defensive.html (ENABLE_QPSG)
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), rank_functions=False, pragmas=PRAGMAS, timeout=BUSY_SECONDS)  # type: ignore[no-untyped-call]

    def _initialize_connection(self, conn: Any) -> None:
        conn.db_config(cysqlite.SQLITE_DBCONFIG_ENABLE_QPSG, 1)  # type: ignore[attr-defined]


class SqliteEngine:
    """One SQLite file, held by one process; commands that leave leases alone may work beside it (`alone=False`).

    Raises DatabaseInUse when another process holds it, DatabaseUnusable when the SQLite library is too old to be safe.
    """

    locks_rows = False

    def __init__(self, path: Path, *, alone: bool = True) -> None:
        self.clock = SteadyClock()
        if CySqliteDatabase.server_version < OLDEST_SAFE_SQLITE:
            found, needed = (".".join(map(str, each)) for each in (CySqliteDatabase.server_version, OLDEST_SAFE_SQLITE))
            raise DatabaseUnusable(f"SQLite {found} can lose commits; {needed} or newer is needed")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = hold(path) if alone else None
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
        self.database = SteadyPlans(path)
        try:
            self.database.connect()
            self.database.get_tables()
        except peewee.DatabaseError as error:
            if self._lock is not None:
                os.close(self._lock)
            raise DatabaseUnusable(f"{path} is damaged, or no database; restore a backup of it") from error
        self._closed = self._refused = False
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._surveys = ThreadPoolExecutor(SURVEYS, thread_name_prefix="sqlite-survey")
        self._writer = threading.Thread(target=self._write_all, name="sqlite-writer", daemon=True)
        self._writer.start()

    async def read(self, work: Work[T]) -> T:
        """Runs `work(database)` here and now. Raises StoreUnavailable."""
        try:
            return work(self.database)
        except (peewee.PeeweeException, cysqlite.Error) as error:
            if not is_outage(error):
                raise
            raise unavailable(error) from error

    async def survey(self, work: Work[T]) -> T:
        """Runs `work(database)` in one of SURVEYS threads, on a connection of its own. Raises StoreUnavailable."""

        def run() -> T:
            with self.database.connection_context():
                return work(self.database)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._surveys, run)
        except (peewee.PeeweeException, cysqlite.Error) as error:
            if not is_outage(error):
                raise
            raise unavailable(error) from error

    async def write(self, work: Work[T]) -> T:
        """Runs `work(database)` in a transaction of its own or of a group, durable when it returns.

        It is carried out even if the caller stops waiting. Raises StoreUnavailable, and whatever `work` raises, after
        which nothing of it remains.
        """
        if self._closed:
            raise StoreUnavailable("the database is closed")
        if self._jobs.qsize() >= MOST_WAITING:
            raise StoreUnavailable("too many writes wait for the disk")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((work, future))
        return await future

    async def wipe(self) -> None:
        """Empties the write-ahead log, which still holds pages as they were. Raises StoreUnavailable."""
        await self.survey(lambda database: database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())

    def close(self) -> None:
        """Finishes what was begun and lets the file go; a file that takes nothing is tried once, not by each group."""
        self._closed = True
        self._jobs.put(None)
        self._writer.join()
        self._surveys.shutdown(wait=True)
        self.database.close()
        if self._lock is not None:
            os.close(self._lock)

    def _write_all(self) -> None:
        going = True
        while going:
            group = [self._jobs.get()]
            while len(group) < GROUP and not self._jobs.empty():
                group.append(self._jobs.get())
            going = None not in group
            jobs = [job for job in group if job is not None]
            if jobs:
                deliver(jobs, self._commit([work for work, _ in jobs]))
        self.database.close()

    def _commit(self, works: list[Work[Any]]) -> list[Any]:
        """The results of `works`, in one transaction; an exception in place of the result of one that failed."""
        if self._closed and self._refused:
            return [StoreUnavailable("the database is closed")] * len(works)
        try:
            self.database.connect(reuse_if_open=True)
            # BEGIN IMMEDIATE: a deferred transaction that turns to writing fails at once when the file is locked.
            with self.database.atomic("immediate"):
                self._refused = False
                if len(works) == 1:
                    return [works[0](self.database)]
                return [self._attempt(work) for work in works]
        except (peewee.PeeweeException, cysqlite.Error) as error:
            self._refused = is_outage(error)
            return [unavailable(error) if self._refused else error] * len(works)
        except Exception as error:  # a single work's own refusal, rolled back
            return [error] * len(works)

    def _attempt(self, work: Work[Any]) -> Any:
        try:
            with self.database.savepoint():
                return work(self.database)
        except (peewee.PeeweeException, cysqlite.Error) as error:
            if is_outage(error):
                raise
            return error
        except Exception as error:
            return error


def deliver(jobs: list[Job], results: list[Any]) -> None:
    """Hands results to the event loops that wait for them, one call per group."""

    def settle() -> None:
        for (_, future), result in zip(jobs, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    jobs[0][1].get_loop().call_soon_threadsafe(settle)


def is_outage(error: Exception) -> bool:
    """A damaged file is one, too: SQLite calls that by no finer name than a database error."""
    outage = isinstance(error, peewee.OperationalError | peewee.InterfaceError | cysqlite.OperationalError)
    return outage or type(error) in (peewee.DatabaseError, cysqlite.DatabaseError)


def unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the database does not answer: {type(error).__name__}")


def hold(path: Path) -> int:
    """Locks `<path>.lock`; the kernel lets go when the process ends, however it ends."""
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise DatabaseInUse(f"another process holds {path}: a server, or another command; stop it first") from None
    return lock
