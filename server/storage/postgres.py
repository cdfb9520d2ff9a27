"""The PostgreSQL engine: a bounded pool of threads, each with a connection of its own, on which SQL runs.

Several processes may share one database: rows are claimed with FOR UPDATE SKIP LOCKED, changed under row locks, and
every lease is measured by the database's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import peewee
import psycopg
from playhouse.db_url import parse

from server.accounts.errors import StoreUnavailable
from server.storage.clock import boottime
from server.storage.engine import MOST_WAITING, SURVEYS, DatabaseUnusable, unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Any], T]

THREADS = 8
"""For reads, and as many for writes: those that hang must not keep from reading. With those for surveys (`SURVEYS`),
each of them has one connection."""
CONNECT_SECONDS = 5
SESSION = (
    "-c statement_timeout=10000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=15000 -c timezone=UTC"
    # What a commit answers is on disk, whatever the server's settings say: the platform has replaced the old token.
    " -c synchronous_commit=on"
)
RETRIED = ("40001", "40P01", "23505")
"""Serialization failure, deadlock, and two who insert the same row: whoever lost runs again and finds it."""
READ_ONLY = "25006"
"""What a server says that was the primary until a failover, to those who are still connected."""
TOO_SLOW = ("57014", "55P03")
"""Over `statement_timeout` or `lock_timeout`: it would take as long again."""
COMMIT_SECONDS = 10.0
"""As long as any statement may take. The server has no limit for commits: they wait for a synchronous standby that is
away for as long as that lasts."""
CANCEL_SECONDS = 2.0
"""How long a server has to hear that a commit is given up."""
CLOSE_SECONDS = 5.0
"""What was begun has so long when the process ends, whatever hangs: a stop must not wait for a database."""
TRIES = 3
ANSWER_SECONDS = 25.0
"""Longer than any statement may take: who waits for more waits for a server that is gone without a word."""
KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
}
SYNC_SECONDS = 30.0


@dataclass(eq=False)
class CommitUnderWay:
    connection: Any
    since: float
    given_up: bool = False


class PostgresEngine:
    """One PostgreSQL database, shared with other processes. Raises DatabaseUnusable if it cannot be reached now."""

    locks_rows = True

    def __init__(self, url: str, threads: int = THREADS) -> None:
        options: dict[str, Any] = parse(url)
        self.database = peewee.PostgresqlDatabase(
            **options,
            prefer_psycopg3=True,
            connect_timeout=CONNECT_SECONDS,
            options=SESSION,
            application_name="accounts",
            **KEEPALIVES,
        )
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="postgres")
        self._writers = ThreadPoolExecutor(threads, thread_name_prefix="postgres-write")
        self._surveys = ThreadPoolExecutor(SURVEYS, thread_name_prefix="postgres-survey")
        self.clock = DatabaseClock(self.database)
        self._waiting = 0
        self._commits: set[CommitUnderWay] = set()
        self._connections: dict[int, Any] = {}
        """By thread."""
        self._over = False
        self._closed = threading.Event()
        self._failovers = 0
        self._mine = threading.local()
        try:
            self._connect()
        except peewee.PeeweeException as error:
            # libpq says what is wrong, and to whom it spoke as whom; a password is never part of it.
            raise DatabaseUnusable(f"PostgreSQL cannot be used: {str(error).partition(chr(10))[0]}") from None
        threading.Thread(target=self._look_after_commits, name="postgres-commits", daemon=True).start()

    async def read(self, work: Work[T]) -> T:
        """Runs `work(database)` on a connection of the pool. Raises StoreUnavailable."""
        return await self._look(self._threads, work, ANSWER_SECONDS)

    async def survey(self, work: Work[T]) -> T:
        """A read that may take long, in threads of its own. It is waited for as long as its statements take."""
        return await self._look(self._surveys, work, None)

    async def write(self, work: Work[T]) -> T:
        """Runs `work(database)` in a transaction, durable when it returns; it may run more than once, and counts once.

        A connection that broke before the commit was sent is replaced and the work runs again. When it breaks during
        the commit the outcome is not known: StoreUnavailable, and callers for whom that matters repeat an idempotent
        swap. It is carried out even if the caller stops waiting.
        """
        if self._waiting >= MOST_WAITING:
            raise StoreUnavailable("too many writes wait for the database")
        writing = asyncio.get_running_loop().run_in_executor(self._writers, self._write, work)
        self._waiting += 1
        writing.add_done_callback(self._waits_no_more)
        return await self._answer(writing, ANSWER_SECONDS)

    async def wipe(self) -> None:
        """Nothing to do here: old versions of rows are autovacuum's business, and old WAL files the server's."""

    def close(self) -> None:
        """Finishes what was begun, and closes every connection. What takes longer than CLOSE_SECONDS is cut off, and
        its outcome is not known."""
        end = threading.Timer(CLOSE_SECONDS, self._cut_off)
        end.daemon = True
        end.start()
        for threads in (self._threads, self._writers, self._surveys):
            threads.shutdown(wait=True)
        end.cancel()
        self._closed.set()
        for connection in self._connections.values():
            connection.close()
        self.database.close()

    def _waits_no_more(self, written: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not written.cancelled():
            written.exception()  # asyncio would log it as lost where the caller has given up

    async def _look(self, threads: ThreadPoolExecutor, work: Work[T], seconds: float | None) -> T:
        looking = asyncio.get_running_loop().run_in_executor(threads, self._read, work)
        try:
            return await self._answer(looking, seconds)
        finally:
            looking.cancel()  # nobody waits for it any more

    async def _answer(self, running: asyncio.Future[T], seconds: float | None) -> T:
        """What does not end in so many seconds goes on in its thread, and its outcome is not known here.

        What has no thread by then is not begun any more: a claim that nobody waits for would count as sent, and a queue
        from before would hold up a database that is back.
        """
        done, _ = await asyncio.wait((running,), timeout=seconds)
        if not done:
            running.cancel()
            raise StoreUnavailable("the database does not answer in time")
        return running.result()

    def _read(self, work: Work[T]) -> T:
        for attempt in range(TRIES):
            try:
                self._connect()
                return work(self.database)
            except (peewee.OperationalError, peewee.InterfaceError) as error:
                self._drop()
                if sqlstate(error) in TOO_SLOW or attempt + 1 == TRIES:
                    raise unavailable(error) from error
        raise AssertionError("unreachable")

    def _write(self, work: Work[T]) -> T:
        for attempt in range(TRIES):
            committing = False
            try:
                self._connect()
                self.database.begin()
                result = work(self.database)
                committing = True
                self._commit()
                return result
            except (
                peewee.OperationalError,
                peewee.InterfaceError,
                peewee.IntegrityError,
                peewee.InternalError,
            ) as error:
                self._roll_back()
                if sqlstate(error) == READ_ONLY:
                    self._failovers += 1  # a new connection finds the new primary
                    self._drop()
                again = is_conflict(error) or (not committing and self.database.is_closed())
                if not again or attempt + 1 == TRIES:
                    raise unavailable(error) from error
            except BaseException:
                self._roll_back()
                raise
        raise AssertionError("unreachable")

    def _connect(self) -> None:
        """After a failover each thread replaces its connection: who only reads would go on with the old server."""
        known, self._mine.failovers = getattr(self._mine, "failovers", self._failovers), self._failovers
        if known != self._failovers:
            self._drop()
        if not self._over and self.database.connect(reuse_if_open=True):
            self._connections[threading.get_ident()] = self.database.connection()
        if self._over:
            raise StoreUnavailable("the process ends")
        self.clock.sync()

    def _commit(self) -> None:
        """Raises StoreUnavailable for a commit that was given up: it may be on this server's disk alone."""
        commit = CommitUnderWay(self.database.connection(), time.monotonic())
        self._commits.add(commit)
        try:
            self.database.commit()
        finally:
            self._commits.discard(commit)
        if commit.given_up:
            raise StoreUnavailable("the database did not commit in time")

    def _look_after_commits(self) -> None:
        while not self._closed.wait(1.0):
            self._give_up_commits(COMMIT_SECONDS)

    def _give_up_commits(self, seconds: float) -> None:
        """Frees the threads of commits that take longer; whoever waits is told that the outcome is not known."""
        until = time.monotonic() - seconds
        late = [commit for commit in list(self._commits) if commit.since < until and not commit.given_up]
        if late:
            # All at once: where nobody answers, each takes its time.
            with ThreadPoolExecutor(len(late), thread_name_prefix="postgres-cancel") as threads:
                threads.map(give_up, late)

    def _cut_off(self) -> None:
        self._over = True
        self._give_up_commits(0.0)  # else the server would keep them
        for connection in list(self._connections.values()):
            cut(connection)

    def _roll_back(self) -> None:
        try:
            self.database.rollback()
        except (peewee.PeeweeException, OSError):
            self._drop()
        else:
            if self.database.connection().closed:
                self._drop()

    def _drop(self) -> None:
        """Forgets a connection: a killed one stays dead while Peewee thinks that it is open."""
        try:
            self.database.close()
        except peewee.PeeweeException:
            log.debug("a broken connection would not close")


class DatabaseClock:
    """The database's time: asked for now and then, and carried on in between by a clock that nobody sets.

    A jump of this machine's wall clock changes nothing, and a machine that was suspended knows that time went on: its
    leases have ended meanwhile. Tests move `offset`.
    """

    def __init__(self, database: peewee.Database, steady: Callable[[], float] = boottime) -> None:
        self.offset = timedelta()
        self._database = database
        self._steady = steady
        self._told: tuple[datetime, float] | None = None

    def __call__(self) -> datetime:
        if self._told is None:
            return datetime.now(UTC) + self.offset
        time_then, steady_then = self._told
        return time_then + timedelta(seconds=self._steady() - steady_then) + self.offset

    def sync(self) -> None:
        """Asks the database, if that was long ago; on the connection of the calling thread."""
        if self._told is not None and self._steady() - self._told[1] < SYNC_SECONDS:
            return
        began = self._steady()
        [now] = self._database.execute_sql("SELECT clock_timestamp()").fetchone()
        self._told = (now.astimezone(UTC), (began + self._steady()) / 2)


def give_up(commit: CommitUnderWay) -> None:
    commit.given_up = True
    log.error("a commit takes too long; it is given up")
    try:
        commit.connection.cancel_safe(timeout=CANCEL_SECONDS)
    except psycopg.Error:
        cut(commit.connection)


def cut(connection: Any) -> None:
    """Who waits for an answer on it, in another thread, hears at once that there will be none."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def is_conflict(error: Exception) -> bool:
    return sqlstate(error) in RETRIED


def sqlstate(error: Exception) -> str | None:
    return getattr(getattr(error, "orig", None), "sqlstate", None)
