"""PostgreSQL: several processes on one database, connections that die, and the database's own time."""

import asyncio
import threading
import time
from collections.abc import Callable
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
from server.storage.postgres import DatabaseClock, PostgresEngine
from server.storage.schema import CounterRow
from server.storage.store import Store
from server.storage.vault import Vault
from tests.postgres import url_of
from tests.storage.make import claim, connected, refreshed, token_set

NewId = Callable[[], str]


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
