"""PostgreSQL: several processes on one database, connections that die, and the database's own time."""

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from server.accounts.calls import Use
from server.accounts.errors import AccountRevoked, StoreUnavailable
from server.accounts.model import Status
from server.storage import postgres
from server.storage.clock import boottime
from server.storage.engine import DatabaseUnusable
from server.storage.postgres import CommitUnderWay, DatabaseClock, PostgresEngine
from server.storage.schema import CounterRow
from server.storage.store import Store
from server.storage.vault import Vault
from tests.postgres import FAST, cluster
from tests.storage.make import claim, connected, refreshed, token_set

NewId = Callable[[], str]


def url_of(engine: PostgresEngine) -> str:
    connected_to: dict[str, Any] = engine.database.connect_params
    return (
        f"postgresql://{connected_to['user']}@{connected_to['host']}:{connected_to['port']}/{engine.database.database}"
    )


def terminate(engine: PostgresEngine) -> int:
    """Ends every connection of the engine, as a failover would; how many."""
    with psycopg.connect(url_of(engine), autocommit=True) as other:
        rows = other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        ).fetchall()
    return len(rows)


async def test_several_processes_share_the_work_and_nobody_claims_twice(
    on_postgres: PostgresEngine, vault: Vault, new_id: NewId
) -> None:
    others = [PostgresEngine(url_of(on_postgres), threads=4) for _ in range(3)]
    stores = [Store(engine, vault, new_id) for engine in (on_postgres, *others)]
    try:
        for user in range(60):
            await connected(stores[0], user=str(user), due=timedelta())
        claimed: list[str] = []

        async def work(number: int) -> None:
            while grants := await claim(stores[number], owner=str(number), limit=4):
                claimed.extend(grant.id for grant in grants)

        await asyncio.gather(*(work(number) for number in range(4) for _ in range(2)))
        assert len(claimed) == len(set(claimed)) == 60
    finally:
        for engine in others:
            engine.close()


async def test_an_identity_is_read_and_an_end_is_told_by_one_process(
    on_postgres: PostgresEngine, vault: Vault, new_id: NewId
) -> None:
    store = Store(on_postgres, vault, new_id)
    for user in range(12):
        await connected(store, user=str(user), life=None)
    on_postgres.clock.offset += timedelta(days=31)
    reads = await asyncio.gather(
        *(store.claim_identity_due("twitter", retry=timedelta(hours=1), limit=4) for _ in range(6))
    )
    ids = [read.grant_id for some in reads for read in some]
    assert len(ids) == len(set(ids)) == 12

    ending = timedelta(minutes=1)
    for user in range(20, 26):
        await connected(store, user=str(user), life=ending, due=ending, refresh_token=False)
    on_postgres.clock.offset += 2 * ending
    ended = await asyncio.gather(*(store.expire_ended("twitter", limit=10) for _ in range(6)))
    assert sum(ended) == 6


async def test_a_use_that_is_recorded_while_its_account_is_being_revoked_is_refused(
    on_postgres: PostgresEngine, vault: Vault, new_id: NewId, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = Store(on_postgres, vault, new_id), PostgresEngine(url_of(on_postgres))
    account = await connected(store)
    use = Use(new_id(), account, "publisher", "POST", "/2/tweets", "", "")
    at_commit, go_on, commit = threading.Event(), threading.Event(), other.database.commit

    def held() -> None:
        at_commit.set()
        assert go_on.wait(10)
        commit()

    monkeypatch.setattr(other.database, "commit", held)
    try:
        revoking = asyncio.create_task(
            Store(other, vault, new_id).revoke_account(
                account.id, caller="somebody", supported=False, ends_user_grant=False
            )
        )
        assert await asyncio.to_thread(at_commit.wait, 10)
        recording = asyncio.create_task(store.record_use(use))
        await asyncio.wait({recording}, timeout=0.5)  # long enough for a use that waits for nobody
        go_on.set()
        await revoking
        with pytest.raises(AccountRevoked):
            await recording
    finally:
        go_on.set()
        other.close()


async def test_a_closed_engine_leaves_no_connection_behind(on_postgres: PostgresEngine) -> None:
    engine = PostgresEngine(url_of(on_postgres), threads=3)

    def connections(*_: object) -> int:
        ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with psycopg.connect(url_of(on_postgres)) as other:
            [count] = other.execute(ours).fetchone() or ()
        return int(count)

    before = connections()
    for look in (engine.read, engine.write, engine.survey):
        await asyncio.gather(*(look(lambda database: database.execute_sql("SELECT pg_sleep(0.05)")) for _ in range(3)))
    assert connections() > before
    engine.close()
    until = time.monotonic() + 5
    while connections() >= before:
        assert time.monotonic() < until, "the server still has them"
        await asyncio.sleep(0.02)


async def test_connections_that_die_between_two_uses_are_replaced(
    on_postgres: PostgresEngine, vault: Vault, new_id: NewId
) -> None:
    store = Store(on_postgres, vault, new_id)
    for user in range(10):
        account = await connected(store, user=str(user))
        assert terminate(on_postgres)
        found = await store.account(account.id)
        assert found is not None and found.status is Status.ACTIVE
        assert terminate(on_postgres)


async def test_a_connection_that_dies_before_the_commit_costs_nothing(on_postgres: PostgresEngine) -> None:
    tries = 0

    def work(database: Any) -> None:
        nonlocal tries
        tries += 1
        CounterRow.insert(name="one", value=tries).execute(database)
        if tries == 1:
            terminate(on_postgres)
            database.execute_sql("SELECT 1")

    await on_postgres.write(work)
    query = "SELECT value FROM counters WHERE name = 'one'"
    found = await on_postgres.read(lambda database: database.execute_sql(query).fetchall())
    assert found == [(2,)]


async def test_a_commit_whose_outcome_is_not_known_is_told_and_can_be_repeated(
    on_postgres: PostgresEngine, vault: Vault, new_id: NewId, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(on_postgres, vault, new_id)
    await connected(store, due=timedelta())
    [grant] = await claim(store)
    now = await store.now()
    offered = refreshed(grant, token_set(2, expire_time=now), now + timedelta(hours=1))
    commit = on_postgres.database.commit

    def lost() -> None:
        commit()
        terminate(on_postgres)
        on_postgres.database.execute_sql("SELECT 1")

    with monkeypatch.context() as broken:
        broken.setattr(on_postgres.database, "commit", lost)
        with pytest.raises(StoreUnavailable):
            await store.commit_refresh(offered)
    assert (await store.commit_refresh(offered)).name == "STORED"
    on_postgres.clock.offset += timedelta(hours=2)
    [again] = await claim(store)
    assert again.generation == 2


async def test_two_connects_of_one_user_at_once_make_one_account(
    on_postgres: PostgresEngine, vault: Vault, new_id: NewId
) -> None:
    store = Store(on_postgres, vault, new_id)
    accounts = await asyncio.gather(*(connected(store, user="same") for _ in range(8)))
    assert len({account.id for account in accounts}) == 1
    assert len(on_postgres.database.execute_sql("SELECT 1 FROM accounts").fetchall()) == 1


def test_a_database_that_is_away_at_the_start_is_told_without_its_password() -> None:
    with pytest.raises(DatabaseUnusable) as caught:
        PostgresEngine("postgresql://accounts:password-canary@127.0.0.1:1/nowhere")
    assert "canary" not in str(caught.value)


async def test_time_is_the_databases_and_a_jump_of_the_wall_clock_changes_nothing(
    on_postgres: PostgresEngine, vault: Vault, new_id: NewId, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(on_postgres, vault, new_id)
    await store.ping()
    before = await store.now()
    [database_time] = on_postgres.database.execute_sql("SELECT clock_timestamp()").fetchone()
    assert abs(before - database_time) < timedelta(seconds=1)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert abs(await store.now() - before) < timedelta(seconds=5)


async def test_a_machine_that_was_suspended_knows_that_its_leases_have_ended(on_postgres: PostgresEngine) -> None:
    seconds = boottime()
    clock = DatabaseClock(on_postgres.database, lambda: seconds)
    await on_postgres.read(lambda _: clock.sync())
    before = clock()
    seconds += 600
    assert clock() - before == timedelta(seconds=600)
    assert on_postgres.clock._steady is boottime  # time.monotonic() stands still meanwhile


async def test_who_looks_through_everything_is_waited_for(
    on_postgres: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "ANSWER_SECONDS", 0.05)
    slowly = "SELECT pg_sleep(0.5)"
    with pytest.raises(StoreUnavailable, match="in time"):
        await on_postgres.read(lambda database: database.execute_sql(slowly).fetchone())
    assert await on_postgres.survey(lambda database: database.execute_sql(slowly).fetchone()) == ("",)


async def test_a_commit_is_on_disk_also_where_the_servers_settings_leave_that_for_later(
    on_postgres: PostgresEngine,
) -> None:
    with psycopg.connect(url_of(on_postgres)) as other:
        assert other.execute("SHOW synchronous_commit").fetchone() == ("off",)
    shown = await on_postgres.read(lambda database: database.execute_sql("SHOW synchronous_commit").fetchone())
    assert shown == ("on",)


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
