"""Changes in the order of their commits: none is skipped, however late it commits, and gaps are told from quiet."""

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from server.accounts.audit import Linker
from server.accounts.changes import Change, Mark
from server.accounts.events import EventKind
from server.accounts.model import Identity
from server.storage.clock import Clock
from server.storage.engine import Engine
from server.storage.postgres import PostgresEngine
from server.storage.store import Store
from server.storage.transaction import micros
from server.storage.vault import Vault
from tests.conftest import advance
from tests.postgres import url_of
from tests.storage.make import connected
from tests.storage.rows import sql

NewId = Callable[[], str]
BEGINNING = Mark(0, "")
WEEK = timedelta(days=7)


async def since(store: Store, mark: Mark = BEGINNING) -> tuple[Change, ...]:
    changes = await store.changes_since(mark, limit=1000)
    assert changes is not None
    return changes


async def rename(store: Store, account: Any, handle: str) -> None:
    identity = Identity(account.platform_user_id, handle, "Ada Lovelace", "https://img.test/ada.png")
    await store.update_identity(account.grant_id, identity, due_time=await store.now() + timedelta(days=1))


async def test_changes_come_in_order_with_the_account_as_it_is_by_now(store: Store) -> None:
    account = await connected(store)
    await rename(store, account, "countess")
    first, second = await since(store)
    assert (first.kind, second.kind) == (EventKind.CONNECTED, EventKind.IDENTITY_CHANGED)
    assert first.account is not None and first.account.handle == "countess"
    assert await since(store, first.mark) != () and await since(store, second.mark) == ()
    assert await store.newest_change() == second.mark


async def test_pages_of_changes_join_without_a_gap(store: Store) -> None:
    for user in range(7):
        await connected(store, user=str(user))
    mark, numbers = BEGINNING, []
    while page := await store.changes_since(mark, limit=3):
        numbers += [change.mark.number for change in page]
        mark = page[-1].mark
    assert numbers == list(range(1, 8))
    assert [change.mark.number for change in await store.recent_changes(limit=3)] == [5, 6, 7]


async def test_a_change_that_commits_late_is_not_skipped(
    on_postgres: PostgresEngine, vault: Vault, new_id: NewId
) -> None:
    """A transaction has its number and does not commit: who comes later waits, so no later number is seen before it."""
    other = PostgresEngine(url_of(on_postgres), threads=4)
    store = Store(on_postgres, vault, new_id)
    try:
        slow = await connected(store, user="slow")
        seen = [change.mark for change in await since(store)]
        taken, may_commit = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def late(database: Any) -> None:
            tx = store._transaction(database)
            tx.event(EventKind.SCOPES_CHANGED, account_id=slow.id, profile_id="p1", platform="twitter")
            tx.write_events()
            loop.call_soon_threadsafe(taken.set)
            asyncio.run_coroutine_threadsafe(may_commit.wait(), loop).result(10)

        holding = asyncio.create_task(on_postgres.write(late))
        await taken.wait()
        later = asyncio.create_task(connected(Store(other, vault, new_id), user="quick"))
        for _ in range(5):
            assert await since(store, seen[-1]) == ()
            await asyncio.sleep(0.05)
        assert not later.done()
        may_commit.set()
        await asyncio.gather(holding, later)
        assert [change.kind for change in await since(store, seen[-1])] == ["scopes_changed", "connected"]
    finally:
        other.close()


async def test_a_reader_among_many_writers_sees_every_change_once_and_in_order(
    on_postgres: PostgresEngine, vault: Vault, new_id: NewId
) -> None:
    engines = [PostgresEngine(url_of(on_postgres), threads=4) for _ in range(3)]
    store = Store(on_postgres, vault, new_id)
    try:

        async def write(writer: int) -> None:
            for user in range(12):
                await connected(Store(engines[writer % 3], vault, new_id), user=f"{writer}/{user}")

        writing = asyncio.gather(*(write(writer) for writer in range(9)))
        mark, seen = BEGINNING, []
        while len(seen) < 108:
            ended = writing.done()
            for change in await since(store, mark):
                seen.append(change)
                mark = change.mark
            assert not ended or len(seen) == 108, "a change was skipped"
        await writing
        assert [change.mark.number for change in seen] == list(range(1, 109))
        assert len({change.account_id for change in seen}) == 108
    finally:
        for engine in engines:
            engine.close()


async def test_a_mark_whose_event_was_pruned_is_too_old(store: Store, clock: Clock) -> None:
    old = await connected(store, user="1")
    [first] = await since(store)
    await Linker(store, "me").work_off()
    advance(clock, days=10)
    await rename(store, old, "countess")
    second = await store.newest_change()
    await store.prune_audit(before=await store.now() - timedelta(days=5), limit=10)
    assert await store.changes_since(first.mark, limit=9) is None
    assert await store.changes_since(BEGINNING, limit=9) is None
    assert await store.changes_since(second, limit=9) == ()
    assert [change.mark for change in await store.recent_changes(limit=9)] == [second]


async def test_the_newest_mark_holds_after_its_event_was_pruned(store: Store, clock: Clock) -> None:
    account = await connected(store)
    await Linker(store, "me").work_off()
    advance(clock, days=10)
    await store.prune_audit(before=await store.now() - timedelta(days=5), limit=10)
    newest = await store.newest_change()
    assert newest == Mark(1, "") and await since(store, newest) == ()
    await rename(store, account, "countess")
    assert [change.kind for change in await since(store, newest)] == ["identity_changed"]


async def test_a_mark_of_a_database_that_has_gone_back_is_too_old(store: Store, engine: Engine) -> None:
    await connected(store, user="1")
    await connected(store, user="2")
    ahead = await store.newest_change()
    sql(engine, "DELETE FROM events WHERE number = 2")
    sql(engine, "UPDATE counters SET value = 1 WHERE name = 'events'")
    assert await store.changes_since(ahead, limit=9) is None
    await connected(store, user="3")
    assert await store.changes_since(ahead, limit=9) is None, "the number is another change's by now"
    await connected(store, user="4")
    assert await store.changes_since(ahead, limit=9) is None
    assert await store.changes_since(dataclasses.replace(ahead, event_id=""), limit=9) is None


async def test_the_profile_of_an_erased_account_is_known_for_a_minute_and_its_digest_for_longer(
    store: Store, clock: Clock
) -> None:
    account = await connected(store, profile_id="acme/ada")
    erasure = await store.begin_erasure("acme/ada", caller="web")
    await store.erase_account(account.id, erasure, supported=True, ends_user_grant=False)
    while await store.erase_traces(erasure):
        pass
    [*_, erased] = await since(store)
    digest = await store.profile_digest("acme/ada")
    assert (erased.kind, erased.account) == (EventKind.ACCOUNT_ERASED, None)
    assert (erased.profile_id, erased.profile_digest) == ("acme/ada", digest)
    advance(clock, minutes=2)
    assert await store.settle_erasure(erasure)
    [*_, erased] = await since(store)
    assert (erased.profile_id, erased.profile_digest) == ("", digest)


# --- grants that cannot be refreshed


async def ending(store: Store, days: float, user: str = "1") -> None:
    life = timedelta(days=days)
    await connected(store, user=user, life=life, due=life, refresh_token=False)


async def kinds(store: Store) -> list[str]:
    return [change.kind for change in await since(store)]


async def test_that_a_grant_ends_soon_is_told_once(store: Store, clock: Clock) -> None:
    await ending(store, days=60)
    await connected(store, user="refreshable", life=timedelta(hours=2))
    assert await store.tell_ends(WEEK, limit=9) == 0
    advance(clock, days=53)
    assert [await store.tell_ends(WEEK, limit=9) for _ in range(2)] == [1, 0]
    assert await kinds(store) == ["connected", "connected", "expiring_soon"]
    [*_, soon] = await since(store)
    assert soon.account is not None and soon.account.platform_user_id == "1"


async def test_a_reconnected_grant_that_ends_soon_is_told_of_again(store: Store, clock: Clock) -> None:
    await ending(store, days=60)
    advance(clock, days=55)
    await store.tell_ends(WEEK, limit=9)
    await ending(store, days=60)
    assert await store.tell_ends(WEEK, limit=9) == 0
    advance(clock, days=55)
    await store.tell_ends(WEEK, limit=9)
    assert await kinds(store) == ["connected", "expiring_soon", "reconnected", "expiring_soon"]


async def test_what_has_ended_already_does_not_end_soon(store: Store, clock: Clock) -> None:
    await ending(store, days=1)
    advance(clock, days=2)
    assert await store.tell_ends(WEEK, limit=9) == 1
    assert await kinds(store) == ["connected"]


async def test_several_processes_tell_of_each_end_once(
    on_postgres: PostgresEngine, vault: Vault, new_id: NewId
) -> None:
    store = Store(on_postgres, vault, new_id)
    for user in range(24):
        await ending(store, days=5, user=str(user))
    await asyncio.gather(*(store.tell_ends(WEEK, limit=5) for _ in range(12)))
    while await store.tell_ends(WEEK, limit=5):
        pass
    assert (await kinds(store)).count("expiring_soon") == 24


@pytest.mark.parametrize("table, condition", [
    ("grants", "NOT refreshable AND NOT end_told AND access_token_expire_time <= {now}"),
    ("events", "kind = 'account_erased' AND profile_id <> '' AND time <= {now}"),
])  # fmt: skip
async def test_looking_for_what_is_to_be_told_reads_an_index(
    sqlite: Engine, vault: Vault, new_id: NewId, table: str, condition: str
) -> None:
    now = micros(await Store(sqlite, vault, new_id).now())
    plan = sqlite.database.execute_sql(
        f"EXPLAIN QUERY PLAN SELECT id FROM {table} WHERE {condition.format(now=now)}"
    ).fetchall()
    assert "_end_untold" in str(plan) or "events_erased" in str(plan)
