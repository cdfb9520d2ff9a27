"""The audit on each store: events are written with what they record, and their hash chain shows every change."""

import asyncio
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from server.accounts.audit import AT_ONCE, LEASE, ORIGIN, Linker, Origin
from server.accounts.chain import Place
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
from tests.storage.make import begun, claim, connected, refreshed, token_set


def sql(engine: Engine, text: str, *parameters: object) -> Any:
    return engine.database.execute_sql(text.replace("?", engine.database.param), list(parameters))


async def revoke(store: Store, account_id: str, caller: str = "web") -> None:
    await store.revoke_account(account_id, caller=caller, supported=True, ends_user_grant=False)


async def some_events(store: Store, number: int = 5) -> list[str]:
    """Links at least so many events; their ids as they are linked."""
    for each in range(number):
        await begun(store, profile_id=f"p{each}")
    await Linker(store, "me").work_off()
    page = await store.list_events(EventFilter(), after="", size=100)
    return [event.id for event in sorted(page.events, key=lambda event: event.position or 0)]


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


# --- verifying: each change that somebody makes past the service is found, and named


async def broken(store: Store) -> tuple[int, str, str]:
    report = await store.verify_chain()
    assert report.broken is not None
    return report.broken.position, report.broken.event_id, report.broken.problem


async def test_an_edited_event_is_named_whatever_was_edited(store: Store, engine: Engine) -> None:
    ids = await some_events(store)
    sql(engine, "CREATE TABLE as_it_was AS SELECT * FROM events")
    for change in (
        "time = time + 1",
        "kind = 'connected'",
        "account_id = 'another'",
        "platform = 'linkedin'",
        "caller = 'somebody else'",
        "peer = '10.0.0.1'",
        "request_id = 'another'",
        "result = 'failed'",
        "number = 4711",
        "facts = '{}'",
        "profile_id = 'another'",
        "personal = '{}'",
        "personal = NULL, profile_id = ''",
    ):
        sql(engine, f"UPDATE events SET {change} WHERE id = ?", ids[2])
        position, event_id, problem = await broken(store)
        assert (position, event_id, "edited" in problem) == (3, ids[2], True), change
        sql(engine, "DELETE FROM events")
        sql(engine, "INSERT INTO events SELECT * FROM as_it_was")
        assert (await store.verify_chain()).broken is None


async def test_a_deleted_event_is_named(store: Store, engine: Engine) -> None:
    ids = await some_events(store)
    sql(engine, "DELETE FROM events WHERE id = ?", ids[1])
    assert await broken(store) == (2, ids[1], "the event was deleted")


async def test_an_event_that_is_deleted_with_its_link_leaves_a_gap(store: Store, engine: Engine) -> None:
    ids = await some_events(store)
    sql(engine, "DELETE FROM events WHERE id = ?", ids[1])
    sql(engine, "DELETE FROM audit_chain WHERE position = 2")
    assert (await broken(store))[0] == 2


async def test_a_gap_that_is_closed_by_moving_the_rest_up_is_found(store: Store, engine: Engine) -> None:
    ids = await some_events(store)
    sql(engine, "DELETE FROM events WHERE id = ?", ids[1])
    sql(engine, "DELETE FROM audit_chain WHERE position = 2")
    for position in (3, 4, 5):
        sql(engine, "UPDATE audit_chain SET position = ? WHERE position = ?", position - 1, position)
        sql(engine, "UPDATE events SET chain_position = ? WHERE chain_position = ?", position - 1, position)
    sql(engine, "UPDATE audit_head SET position = 4")
    assert (await broken(store))[:2] == (2, ids[2])


async def test_the_end_of_the_chain_cannot_be_cut_off_unseen(store: Store, engine: Engine) -> None:
    await some_events(store)
    sql(engine, "DELETE FROM events WHERE chain_position > 3")
    sql(engine, "DELETE FROM audit_chain WHERE position > 3")
    assert (await broken(store))[0] == 4


async def test_the_beginning_of_the_chain_cannot_be_cut_off_unseen(store: Store, engine: Engine) -> None:
    await some_events(store)
    [link] = sql(engine, "SELECT link FROM audit_chain WHERE position = 2").fetchone()
    sql(engine, "DELETE FROM events WHERE chain_position <= 2")
    sql(engine, "DELETE FROM audit_chain WHERE position <= 2")
    assert (await broken(store))[0] == 1
    sql(engine, "UPDATE audit_head SET start_position = 2, start_link = ?", link)
    position, _, problem = await broken(store)
    assert position == 2 and "pruned" in problem


COPY = """INSERT INTO events (id, time, kind, profile_id, platform, caller, facts, chain_position)
          SELECT 'forged', time, kind, profile_id, platform, caller, facts, ? FROM events WHERE chain_position = 3"""


async def test_an_inserted_event_is_named(store: Store, engine: Engine) -> None:
    await some_events(store)
    sql(engine, COPY, 3)
    assert await broken(store) == (3, "forged", "the event was inserted")


async def test_an_event_that_is_inserted_with_a_link_of_its_own_is_named(store: Store, engine: Engine) -> None:
    await some_events(store)
    for position in (5, 4, 3):
        sql(engine, "UPDATE audit_chain SET position = ? WHERE position = ?", position + 1, position)
        sql(engine, "UPDATE events SET chain_position = ? WHERE chain_position = ?", position + 1, position)
    sql(engine, COPY.replace("= 3", "= 4"), 3)
    sql(
        engine,
        "INSERT INTO audit_chain SELECT 3, 'forged', salt, personal_hash, link FROM audit_chain WHERE position = 2",
    )
    sql(engine, "UPDATE audit_head SET position = 6")
    assert (await broken(store))[:2] == (3, "forged")


async def test_events_that_change_places_are_found(store: Store, engine: Engine) -> None:
    ids = await some_events(store)
    sql(engine, "UPDATE audit_chain SET event_id = 'x' WHERE position = 2")
    sql(engine, "UPDATE audit_chain SET event_id = ? WHERE position = 3", ids[1])
    sql(engine, "UPDATE audit_chain SET event_id = ? WHERE position = 2", ids[2])
    assert (await broken(store))[0] == 2


async def test_a_chain_that_is_written_anew_does_not_have_the_head_that_was_noted(store: Store, engine: Engine) -> None:
    await some_events(store)
    noted = (await store.verify_chain()).head
    sql(engine, "UPDATE events SET caller = 'somebody else' WHERE chain_position = 3")
    sql(engine, "DELETE FROM audit_chain")
    sql(engine, "UPDATE events SET chain_position = NULL")
    sql(engine, "UPDATE audit_head SET position = 0, link = start_link")
    assert await Linker(store, "me").work_off() == 5
    assert (await store.verify_chain()).broken is None  # the database alone cannot tell
    found = (await store.verify_chain(noted)).broken
    assert found is not None and (found.position, "written anew" in found.problem) == (5, True)
    longer = (await store.verify_chain(Place(9, noted.link))).broken
    assert longer is not None and longer.position == 6


@pytest.mark.parametrize("facts", ["no json", "[]", ""])
async def test_an_event_whose_facts_cannot_be_read_is_named_and_still_listed(
    store: Store, engine: Engine, facts: str
) -> None:
    await some_events(store)
    sql(engine, COPY.replace("?", "NULL"))
    sql(engine, "UPDATE events SET facts = ? WHERE id = 'forged'", facts)
    assert await broken(store) == (6, "forged", "its facts cannot be read")
    events = (await store.list_events(EventFilter(), after="", size=9)).events
    assert [event.facts for event in events if event.id == "forged"] == [{}]
    await Linker(store, "me").work_off()
    assert await broken(store) == (6, "forged", "its facts cannot be read")


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("audit_pruned", "{}"),
        ("audit_pruned", '{"position": 1, "link": []}'),
        ("personal_data_erased", '{"events": 7}'),
    ],
)
async def test_an_event_that_says_less_than_its_kind_must_is_named(
    store: Store, engine: Engine, kind: str, facts: str
) -> None:
    await some_events(store)
    sql(engine, COPY.replace("?", "NULL"))
    sql(engine, "UPDATE events SET kind = ?, facts = ? WHERE id = 'forged'", kind, facts)
    assert await broken(store) == (6, "forged", "its facts cannot be read")


async def forge_a_prune(store: Store, engine: Engine, position: int, start_link: str) -> None:
    """What somebody does who can write to the database: a chain of one event, which says that the rest was pruned."""
    start = Place(position, start_link)
    sql(engine, "DELETE FROM events")
    sql(engine, "DELETE FROM audit_chain")
    sql(engine, "UPDATE audit_head SET position = ?, link = ?, start_position = ?, start_link = ?", *start, *start)
    await store._write(
        lambda tx: tx.event(
            EventKind.AUDIT_PRUNED, account_id=None, profile_id="", platform="", position=position, link=start_link
        )
    )
    assert await Linker(store, "me").work_off() == 1


async def test_a_forged_prune_does_not_have_the_head_that_was_noted(store: Store, engine: Engine) -> None:
    await some_events(store)
    noted = (await store.verify_chain()).head
    await forge_a_prune(store, engine, 9, "ab" * 32)
    assert (await store.verify_chain()).broken is None  # the database alone cannot tell
    found = (await store.verify_chain(noted)).broken
    assert found is not None and (found.position, "cannot be vouched for" in found.problem) == (5, True)
    await forge_a_prune(store, engine, 5, "ab" * 32)
    found = (await store.verify_chain(noted)).broken
    assert found is not None and (found.position, "written anew" in found.problem) == (5, True)


async def test_a_head_that_was_noted_where_the_chain_begins_is_still_there(store: Store, engine: Engine) -> None:
    await some_events(store)
    noted = (await store.verify_chain()).head
    await forge_a_prune(store, engine, *noted)
    report = await store.verify_chain(noted)
    assert (report.broken, report.start, report.head.position) == (None, noted, 6)
    [[time]] = sql(engine, "SELECT time FROM events").fetchall()
    assert report.first_time == time


async def test_a_walk_over_more_links_than_are_read_at_once_finds_the_last_one(
    store: Store, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await some_events(store, 7)
    monkeypatch.setattr(audit, "READ_AT_ONCE", 3)
    assert (await store.verify_chain()).head.position == 7
    sql(engine, "UPDATE events SET caller = 'x' WHERE id = ?", ids[6])
    assert (await broken(store))[:2] == (7, ids[6])


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
