"""The audit on each store: events are written with what they record, linked into the chain once, and listed."""

import asyncio
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from server.accounts.audit import AT_ONCE, LEASE, ORIGIN, Linker, Origin
from server.accounts.errors import StoreUnavailable
from server.accounts.events import EventFilter, EventKind
from server.accounts.model import Status
from server.storage import audit
from server.storage.clock import Clock
from server.storage.engine import Engine
from server.storage.postgres import PostgresEngine
from server.storage.store import Store
from server.storage.transaction import Transaction
from server.storage.vault import Vault
from tests.storage.audited import revoke, some_events
from tests.storage.make import begun, claim, connected, refreshed, token_set
from tests.storage.rows import sql

# --- recording


async def test_an_event_says_who_did_what_to_which_account_and_from_where(store: Store) -> None:
    account = await connected(store)
    token = ORIGIN.set(lambda: Origin("ipv4:10.0.0.7:4711", "request-1"))
    await revoke(store, account.id, "publisher")
    ORIGIN.reset(token)
    [event] = (await store.list_events(EventFilter(kind="revoked"), after="", size=10)).events
    assert (event.caller, event.peer, event.request_id) == ("publisher", "ipv4:10.0.0.7:4711", "request-1")
    assert (event.account_id, event.profile_id, event.platform, event.result) == (account.id, "p1", "twitter", "done")


async def test_a_revoke_that_cannot_be_recorded_does_not_happen(store: Store, engine: Engine) -> None:
    account = await connected(store)
    sql(engine, "ALTER TABLE events RENAME TO away")
    with pytest.raises(Exception, match=r"events|database"):
        await revoke(store, account.id)
    sql(engine, "ALTER TABLE away RENAME TO events")
    found = await store.account(account.id)
    assert found is not None and found.status is Status.ACTIVE
    assert await store.grant(account.grant_id) is not None
    assert await store.claim_revocations("twitter", lease=timedelta(minutes=1), limit=9) == []


async def test_a_refresh_for_a_caller_that_cannot_be_recorded_is_not_claimed(
    store: Store, engine: Engine, clock: Clock
) -> None:
    account = await connected(store)
    clock.offset += timedelta(minutes=30)
    minute = timedelta(minutes=1)
    sql(engine, "ALTER TABLE events RENAME TO away")
    with pytest.raises(Exception, match=r"events|database"):
        await store.claim_grants([account.grant_id], owner="me", lease=minute, min_interval=minute, caller="web")
    sql(engine, "ALTER TABLE away RENAME TO events")
    grant = await store.grant(account.grant_id)
    assert grant is not None and (grant.sends, grant.state) == (0, "ready")
    await store.claim_grants([account.grant_id], owner="me", lease=minute, min_interval=minute, caller="web")
    [event] = (await store.list_events(EventFilter(kind="refresh_requested"), after="", size=9)).events
    assert (event.account_id, event.caller) == (account.id, "web")


async def test_refreshes_that_are_stored_together_are_attributed_to_none_of_the_calls_that_wait_for_them(
    store: Store, clock: Clock
) -> None:
    account = await connected(store)
    clock.offset += timedelta(minutes=97)
    [claimed] = await claim(store)
    later = await store.now() + timedelta(hours=2)
    fewer = token_set(2, expire_time=later, scopes=("users.read",))
    token = ORIGIN.set(lambda: Origin("ipv4:10.0.0.7:1", "request-7"))
    await store.commit_refresh(refreshed(claimed, fewer, later))
    ORIGIN.reset(token)
    changed = (await store.events_of(account.id, limit=9))[-1]
    assert (changed.kind, changed.request_id) == ("scopes_changed", "")


async def test_what_an_operator_says_about_a_platform_is_recorded(store: Store) -> None:
    await store.set_pause("twitter", reason="incident 12", operator="ada")
    await store.set_pause("twitter", reason="", operator="ada")
    events = (await store.list_events(EventFilter(), after="", size=9)).events
    assert [(event.kind, event.caller) for event in events] == [
        ("platform_resumed", "operator ada"),
        ("platform_paused", "operator ada"),
    ]


async def test_who_was_blocked_and_let_in_again_is_recorded_with_who_did_it_and_why(store: Store) -> None:
    await store.set_block("web", reason="its key was stolen", operator="ada")
    await store.set_block("web", reason="", operator="grace")
    events = (await store.list_events(EventFilter(), after="", size=9)).events
    assert [(event.kind, event.caller, event.facts) for event in events] == [
        ("caller_unblocked", "operator grace", {"blocked": "web", "reason": ""}),
        ("caller_blocked", "operator ada", {"blocked": "web", "reason": "its key was stolen"}),
    ]


@pytest.mark.parametrize("say", ["set_block", "set_pause"])
async def test_what_an_operator_says_does_not_hold_unless_it_is_recorded(
    store: Store, monkeypatch: pytest.MonkeyPatch, say: str
) -> None:
    def full(_: Transaction) -> None:
        raise StoreUnavailable("database or disk is full")

    monkeypatch.setattr(Transaction, "write_events", full)
    with pytest.raises(StoreUnavailable):
        await getattr(store, say)("twitter", reason="stolen", operator="ada")
    assert await store.blocks() == await store.pauses() == ()


# --- linking


async def test_every_event_is_linked_once_and_the_chain_is_whole(store: Store) -> None:
    await connected(store)
    linker = Linker(store, "me")
    assert await linker.work_off() == 2
    assert await linker.work_off() == 0
    await some_events(store, AT_ONCE + 1)
    report = await store.verify_chain()
    assert (report.broken, report.head.position, report.tail) == (None, AT_ONCE + 3, ())


async def test_what_is_not_linked_yet_is_shown_as_the_tail(store: Store) -> None:
    await some_events(store, 2)
    await begun(store, profile_id="p9")
    report = await store.verify_chain()
    assert report.broken is None
    assert [(event.kind, event.profile_id) for event in report.tail] == [("connect_begun", "p9")]


async def test_how_long_the_oldest_event_waits_to_be_linked_is_known(store: Store, clock: Clock) -> None:
    assert await store.audit_lag() == timedelta()
    await begun(store)
    clock.offset += timedelta(minutes=6)
    await begun(store)
    assert timedelta(minutes=6) <= await store.audit_lag() < timedelta(minutes=7)
    await Linker(store, "me").work_off()
    assert await store.audit_lag() == timedelta()


async def test_only_one_owner_links_until_its_lease_ends(store: Store, clock: Clock) -> None:
    await begun(store)
    assert await Linker(store, "me").work_off() == 1
    await begun(store)
    assert await Linker(store, "other").work_off() == 0
    clock.offset += LEASE
    assert await Linker(store, "other").work_off() == 1
    await begun(store)
    assert await Linker(store, "me").work_off() == 0
    assert (await store.verify_chain()).broken is None


async def test_linking_takes_no_turn_to_write_while_there_is_nothing_to_link(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_events(store, 1)
    monkeypatch.setattr(store, "_write", None)
    assert await Linker(store, "me").work_off() == 0


async def test_an_event_with_an_older_id_that_is_committed_late_is_linked_all_the_same(
    on_postgres: PostgresEngine, vault: Vault, new_id: Callable[[], str]
) -> None:
    store = Store(on_postgres, vault, new_id)  # SQLite has one writer: nothing is committed late there
    written, go_on = threading.Event(), threading.Event()

    def late(tx: Transaction) -> None:
        tx.event(EventKind.CONNECT_BEGUN, account_id=None, profile_id="late", platform="twitter")
        tx.write_events()
        tx._events.clear()
        written.set()
        go_on.wait(5)

    writing = asyncio.create_task(store._write(late))
    await asyncio.to_thread(written.wait, 5)
    await begun(store, profile_id="early")
    assert await Linker(store, "me").work_off() == 1
    go_on.set()
    await writing
    assert await Linker(store, "me").work_off() == 1
    events = (await store.list_events(EventFilter(), after="", size=9)).events
    assert {event.profile_id: event.position for event in events} == {"early": 1, "late": 2}
    assert (await store.verify_chain()).broken is None


async def test_processes_that_link_at_once_link_each_event_once(store: Store, clock: Clock) -> None:
    for number in range(3):
        await asyncio.gather(*(begun(store, profile_id=f"p{number}-{each}") for each in range(20)))
        await asyncio.gather(*(Linker(store, f"process {each}").work_off() for each in range(4)))
        clock.offset += LEASE
    await Linker(store, "last").work_off()
    report = await store.verify_chain()
    assert (report.broken, report.head.position, report.tail) == (None, 60, ())


async def test_links_over_a_head_that_moved_are_not_committed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await begun(store)
    next_link = audit.next_link

    def moves_the_head(*args: Any) -> str:
        tx_head = audit.ChainRow.update(position=7).where(audit.ChainRow.name == audit.CHAIN)
        tx_head.execute(database[0])
        return next_link(*args)

    database: list[Any] = []
    link = audit.link

    def linked(tx: Transaction, *args: Any) -> int:
        database.append(tx.database)
        return link(tx, *args)

    monkeypatch.setattr(audit, "next_link", moves_the_head)
    monkeypatch.setattr(audit, "link", linked)
    with pytest.raises(audit.ChainMoved):
        await Linker(store, "me").work_off()
    monkeypatch.undo()
    assert (await store.verify_chain()).head.position == 0
    assert await Linker(store, "me").work_off() == 1


# --- listing


async def test_events_are_listed_newest_first_and_each_once(store: Store) -> None:
    for number in range(7):
        await begun(store, profile_id=f"p{number}")
    seen: list[str] = []
    after = ""
    for expected_more in (True, True, False):
        page = await store.list_events(EventFilter(), after=after, size=3)
        assert page.more is expected_more
        seen += [event.profile_id for event in page.events]
        after = f"{page.events[-1].time.isoformat()} {page.events[-1].id}"
    assert seen == [f"p{number}" for number in reversed(range(7))]


async def test_events_of_one_transaction_share_a_time_and_are_still_paged_through(store: Store) -> None:
    def record(tx: Transaction) -> None:
        for number in range(5):
            tx.event(EventKind.CONNECT_BEGUN, account_id=None, profile_id=f"p{number}", platform="twitter")

    await store._write(record)
    seen: set[str] = set()
    after = ""
    for _ in range(3):
        page = await store.list_events(EventFilter(), after=after, size=2)
        seen |= {event.profile_id for event in page.events}
        after = f"{page.events[-1].time.isoformat()} {page.events[-1].id}"
    assert len(seen) == 5


async def test_events_are_filtered(store: Store, clock: Clock) -> None:
    account = await connected(store, profile_id="acme/1")
    clock.offset += timedelta(hours=1)
    noon = await store.now()
    await connected(store, profile_id="other/1", platform="linkedin")
    await revoke(store, account.id, "ops")

    async def kinds(**which: Any) -> list[str]:
        page = await store.list_events(EventFilter(**which), after="", size=50)
        return [event.kind for event in reversed(page.events)]

    assert await kinds(account_id=account.id) == ["connected", "revoked"]
    assert await kinds(profile_id="acme/1") == ["connect_begun", "connected", "revoked"]
    assert await kinds(caller="ops") == ["revoked"]
    assert await kinds(kind="connected") == ["connected", "connected"]
    assert await kinds(end_time=noon) == ["connect_begun", "connected"]
    assert await kinds(start_time=noon) == ["connect_begun", "connected", "revoked"]
    assert await kinds(profile_prefixes=("other/", "x/")) == ["connect_begun", "connected"]
    assert await kinds(profile_prefixes=()) == []
    assert await kinds(platforms=frozenset({"linkedin"})) == ["connect_begun", "connected"]
    assert await kinds(platforms=frozenset()) == []


async def test_what_may_be_personal_is_kept_apart_from_the_rest(store: Store, engine: Engine) -> None:
    account = await connected(store)
    [facts, personal] = sql(engine, "SELECT facts, personal FROM events WHERE kind = 'connected'").fetchone()
    assert json.loads(personal) == {"handle": "ada"}
    assert sorted(json.loads(facts)) == ["missing_scopes", "scopes"]
    [event] = await store.events_of(account.id, limit=9)
    assert event.facts["handle"] == "ada" and "scopes" in event.facts
