"""PostgreSQL that hangs, is slow or has failed over: who waits for how long, and what is given up."""

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from server.accounts.errors import StoreUnavailable
from server.storage import postgres
from server.storage.postgres import CommitUnderWay, PostgresEngine
from server.storage.schema import CounterRow
from tests.postgres import FAST, cluster, url_of


async def test_a_read_that_takes_too_long_is_not_begun_again(on_postgres: PostgresEngine) -> None:
    tries = 0

    def look(database: Any) -> None:
        nonlocal tries
        tries += 1
        database.execute_sql("SET statement_timeout = 50")
        database.execute_sql("SELECT pg_sleep(30)")

    with pytest.raises(StoreUnavailable):
        await on_postgres.read(look)
    assert tries == 1


async def test_a_connection_to_what_is_a_standby_since_a_failover_is_replaced(one_thread: PostgresEngine) -> None:
    for run in (one_thread.read, one_thread.survey, one_thread.write):
        await run(lambda database: database.execute_sql("SET default_transaction_read_only = on"))
    await one_thread.write(lambda database: CounterRow.insert(name="one", value=1).execute(database))
    query = "SELECT value FROM counters WHERE name = 'one'"
    assert await one_thread.read(lambda database: database.execute_sql(query).fetchall()) == [(1,)]
    for look in (one_thread.read, one_thread.survey):
        shown = await look(lambda database: database.execute_sql("SHOW default_transaction_read_only").fetchall())
        assert shown == [("off",)], "who only reads would never notice"


@pytest.fixture
def one_thread(on_postgres: PostgresEngine) -> Iterator[PostgresEngine]:
    engine = PostgresEngine(url_of(on_postgres), threads=1)
    yield engine
    engine.close()


async def test_reads_go_on_while_every_write_hangs(one_thread: PostgresEngine) -> None:
    go_on = threading.Event()
    hanging = asyncio.create_task(one_thread.write(lambda _: go_on.wait(30)))
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(5):
            assert await one_thread.read(lambda database: database.execute_sql("SELECT 1").fetchall()) == [(1,)]
    finally:
        go_on.set()
    await hanging


async def test_what_nobody_waits_for_any_more_is_not_begun(
    one_thread: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, begun = threading.Event(), []
    hanging = [asyncio.create_task(run(lambda _: go_on.wait(30))) for run in (one_thread.read, one_thread.write)]
    await asyncio.sleep(0)
    try:
        given_up = asyncio.create_task(one_thread.read(lambda _: begun.append("a read that was given up")))
        await asyncio.sleep(0)
        given_up.cancel()
        with monkeypatch.context() as short:
            short.setattr(postgres, "ANSWER_SECONDS", 0.05)
            with pytest.raises(StoreUnavailable):
                await one_thread.write(lambda _: begun.append("a write that came too late"))
            await asyncio.sleep(0)  # the loop tells the pool
    finally:
        go_on.set()
    await asyncio.gather(*hanging)
    await one_thread.read(lambda _: begun.append("a read that is waited for"))
    await one_thread.write(lambda _: begun.append("a write that is waited for"))
    assert begun == ["a read that is waited for", "a write that is waited for"]


async def test_a_write_whose_caller_gives_up_in_the_queue_is_carried_out(one_thread: PostgresEngine) -> None:
    go_on, begun = threading.Event(), []
    hanging = asyncio.create_task(one_thread.write(lambda _: go_on.wait(30)))
    await asyncio.sleep(0)
    given_up = asyncio.create_task(one_thread.write(lambda _: begun.append("the write")))
    await asyncio.sleep(0)
    given_up.cancel()
    go_on.set()
    await hanging
    await one_thread.write(lambda _: None)
    assert begun == ["the write"]


async def test_a_write_that_fails_when_its_caller_has_given_up_is_no_fault(
    one_thread: PostgresEngine, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()

    def refused(_: Any) -> None:
        go_on.wait(30)
        raise StoreUnavailable("away")

    waiting = asyncio.create_task(one_thread.write(refused))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    await one_thread.write(lambda _: None)  # after it
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_behind_a_database_that_hangs_only_so_many_writes_wait(
    one_thread: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their callers may have given up long ago, and come again and again."""
    monkeypatch.setattr(postgres, "MOST_WAITING", 10)
    go_on, begun = threading.Event(), []
    waiting = [asyncio.create_task(one_thread.write(lambda _: begun.append(go_on.wait(30)))) for _ in range(10)]
    await asyncio.sleep(0)
    try:
        for each in waiting:
            each.cancel()
        with pytest.raises(StoreUnavailable):
            await one_thread.write(lambda _: begun.append(False))
    finally:
        go_on.set()
    await asyncio.wrap_future(one_thread._writers.submit(lambda: None))  # after all of them
    await one_thread.write(lambda _: None)
    assert begun == [True] * 10


async def test_a_statement_that_hangs_is_given_up(on_postgres: PostgresEngine) -> None:
    def wait(database: Any) -> None:
        database.execute_sql("SET LOCAL statement_timeout = 50")
        database.execute_sql("SELECT pg_sleep(30)")

    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await on_postgres.write(wait)
    assert time.monotonic() - began < 5


async def test_a_stop_does_not_wait_for_a_database_that_stands_still(
    one_thread: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "CLOSE_SECONDS", 0.2)
    stopped: list[int] = []
    standing_still = threading.Event()

    def work(database: Any) -> None:
        [pid] = database.execute_sql("SELECT pg_backend_pid()").fetchone()
        os.kill(pid, signal.SIGSTOP)
        stopped.append(pid)
        standing_still.set()
        database.execute_sql("SELECT 1")

    hanging = asyncio.create_task(one_thread.write(work))
    waiting = asyncio.create_task(one_thread.write(work))
    try:
        assert await asyncio.to_thread(standing_still.wait, 20)
        async with asyncio.timeout(20):
            await asyncio.to_thread(one_thread.close)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    for each in (hanging, waiting):
        with pytest.raises(StoreUnavailable):
            await each
    assert len(stopped) == 1


async def test_commits_that_hang_together_are_given_up_together(one_thread: PostgresEngine) -> None:
    """One after the other a stop would take two seconds for each, where nobody answers."""
    all_asked = threading.Barrier(8)

    class Silent:
        def cancel_safe(self, *, timeout: float) -> None:
            all_asked.wait(10 * timeout)
            raise psycopg.OperationalError

        def fileno(self) -> int:
            raise psycopg.OperationalError

    commits = [CommitUnderWay(Silent(), time.monotonic()) for _ in range(8)]
    one_thread._commits.update(commits)
    await asyncio.to_thread(one_thread._give_up_commits, 0.0)
    assert not all_asked.broken and all(commit.given_up for commit in commits)


async def test_a_commit_that_waits_for_a_standby_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would keep its thread, and the process from ending, until the standby is back."""
    monkeypatch.setattr(postgres, "CLOSE_SECONDS", 0.2)
    with cluster(f"{FAST} -c synchronous_standby_names=nobody") as server:
        url = f"{server}/postgres"
        with psycopg.connect(url, autocommit=True, options="-c synchronous_commit=local") as beside:
            beside.execute("CREATE TABLE written (number int)")
            engine = PostgresEngine(url, threads=1)
            first = asyncio.create_task(engine.write(lambda to: to.execute_sql("INSERT INTO written VALUES (1)")))
            await until_a_commit_waits(beside)
            with monkeypatch.context() as short:
                short.setattr(postgres, "COMMIT_SECONDS", 0.0)
                with pytest.raises(StoreUnavailable):
                    await first
            second = asyncio.create_task(engine.write(lambda to: to.execute_sql("INSERT INTO written VALUES (2)")))
            await until_a_commit_waits(beside)
            async with asyncio.timeout(20):
                await asyncio.to_thread(engine.close)
            with pytest.raises(StoreUnavailable):
                await second
            assert beside.execute("SELECT number FROM written ORDER BY number").fetchall() == [(1,), (2,)]


async def until_a_commit_waits(beside: psycopg.Connection[Any]) -> None:
    """One that is given up before that does not count."""
    until = time.monotonic() + 20
    while not beside.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchall():
        assert time.monotonic() < until
        await asyncio.sleep(0.01)
