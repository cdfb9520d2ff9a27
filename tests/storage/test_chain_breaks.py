"""Changes that somebody makes to the audit past the service: each is found, and named."""

import pytest

from server.accounts.audit import Linker
from server.accounts.chain import ChainPlace
from server.accounts.events import EventFilter, EventKind
from server.storage import audit
from server.storage.engine import Engine
from server.storage.store import Store
from tests.storage.audited import some_events
from tests.storage.rows import sql


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
        sql(engine, f"UPDATE events SET {change} WHERE id = ?", [ids[2]])
        position, event_id, problem = await broken(store)
        assert (position, event_id, "edited" in problem) == (3, ids[2], True), change
        sql(engine, "DELETE FROM events")
        sql(engine, "INSERT INTO events SELECT * FROM as_it_was")
        assert (await store.verify_chain()).broken is None


async def test_a_deleted_event_is_named(store: Store, engine: Engine) -> None:
    ids = await some_events(store)
    sql(engine, "DELETE FROM events WHERE id = ?", [ids[1]])
    assert await broken(store) == (2, ids[1], "the event was deleted")


async def test_an_event_that_is_deleted_with_its_link_leaves_a_gap(store: Store, engine: Engine) -> None:
    ids = await some_events(store)
    sql(engine, "DELETE FROM events WHERE id = ?", [ids[1]])
    sql(engine, "DELETE FROM audit_chain WHERE position = 2")
    assert (await broken(store))[0] == 2


async def test_a_gap_that_is_closed_by_moving_the_rest_up_is_found(store: Store, engine: Engine) -> None:
    ids = await some_events(store)
    sql(engine, "DELETE FROM events WHERE id = ?", [ids[1]])
    sql(engine, "DELETE FROM audit_chain WHERE position = 2")
    for position in (3, 4, 5):
        sql(engine, "UPDATE audit_chain SET position = ? WHERE position = ?", [position - 1, position])
        sql(engine, "UPDATE events SET chain_position = ? WHERE chain_position = ?", [position - 1, position])
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
    sql(engine, "UPDATE audit_head SET start_position = 2, start_link = ?", [link])
    position, _, problem = await broken(store)
    assert position == 2 and "pruned" in problem


COPY = """INSERT INTO events (id, time, kind, profile_id, platform, caller, facts, chain_position)
          SELECT 'forged', time, kind, profile_id, platform, caller, facts, ? FROM events WHERE chain_position = 3"""


async def test_an_inserted_event_is_named(store: Store, engine: Engine) -> None:
    await some_events(store)
    sql(engine, COPY, [3])
    assert await broken(store) == (3, "forged", "the event was inserted")


async def test_an_event_that_is_inserted_with_a_link_of_its_own_is_named(store: Store, engine: Engine) -> None:
    await some_events(store)
    for position in (5, 4, 3):
        sql(engine, "UPDATE audit_chain SET position = ? WHERE position = ?", [position + 1, position])
        sql(engine, "UPDATE events SET chain_position = ? WHERE chain_position = ?", [position + 1, position])
    sql(engine, COPY.replace("= 3", "= 4"), [3])
    sql(
        engine,
        "INSERT INTO audit_chain SELECT 3, 'forged', salt, personal_hash, link FROM audit_chain WHERE position = 2",
    )
    sql(engine, "UPDATE audit_head SET position = 6")
    assert (await broken(store))[:2] == (3, "forged")


async def test_events_that_change_places_are_found(store: Store, engine: Engine) -> None:
    ids = await some_events(store)
    sql(engine, "UPDATE audit_chain SET event_id = 'x' WHERE position = 2")
    sql(engine, "UPDATE audit_chain SET event_id = ? WHERE position = 3", [ids[1]])
    sql(engine, "UPDATE audit_chain SET event_id = ? WHERE position = 2", [ids[2]])
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
    longer = (await store.verify_chain(ChainPlace(9, noted.link))).broken
    assert longer is not None and longer.position == 6


@pytest.mark.parametrize("facts", ["no json", "[]", ""])
async def test_an_event_whose_facts_cannot_be_read_is_named_and_still_listed(
    store: Store, engine: Engine, facts: str
) -> None:
    await some_events(store)
    sql(engine, COPY.replace("?", "NULL"))
    sql(engine, "UPDATE events SET facts = ? WHERE id = 'forged'", [facts])
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
    sql(engine, "UPDATE events SET kind = ?, facts = ? WHERE id = 'forged'", [kind, facts])
    assert await broken(store) == (6, "forged", "its facts cannot be read")


async def forge_a_prune(store: Store, engine: Engine, position: int, start_link: str) -> None:
    """What somebody does who can write to the database: a chain of one event, which says that the rest was pruned."""
    start = ChainPlace(position, start_link)
    sql(engine, "DELETE FROM events")
    sql(engine, "DELETE FROM audit_chain")
    sql(engine, "UPDATE audit_head SET position = ?, link = ?, start_position = ?, start_link = ?", [*start, *start])
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
    sql(engine, "UPDATE events SET caller = 'x' WHERE id = ?", [ids[6]])
    assert (await broken(store))[:2] == (7, ids[6])
