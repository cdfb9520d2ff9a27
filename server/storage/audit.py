"""SQL of the audit: events page by page, linking them into the hash chain, and walking it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from peewee import JOIN, Database, fn

from server.accounts.chain import ChainPlace, ChainReport, Link, Recorded, Verifier, facts_of, next_link, personal_hash
from server.accounts.events import Event, EventFilter, EventKind, EventPage
from server.storage.schema import ChainRow, EventRow, LinkRow
from server.storage.statement import blocks, slot
from server.storage.transaction import Transaction, instant, micros

CHAIN = "events"
READ_AT_ONCE = 1000
SALT = 16
"""Bytes."""


class Lease(NamedTuple):
    """Who may add to the chain, and until when."""

    lease_owner: str
    lease_expire_time: int


class ChainMoved(Exception):
    """The head of the chain is not where it was: another process is linking, and its links stand."""


def to_event(row: Any) -> Event:
    return Event(
        number=row.number,
        time=instant(row.time),
        kind=row.kind,
        caller=row.caller,
        facts={**readable(row.facts), **readable(row.personal or "{}")},
        id=row.id,
        account_id=row.account_id,
        profile_id=row.profile_id,
        platform=row.platform,
        peer=row.peer,
        request_id=row.request_id,
        result=row.result,
        position=row.chain_position,
    )


def readable(text: str) -> Mapping[str, Any]:
    """Facts; none for what somebody damaged. A list shows the event all the same; `audit verify` names it."""
    try:
        return facts_of(text)
    except ValueError:
        return {}


def list_page(tx: Transaction, which: EventFilter, after: str, size: int) -> EventPage:
    """One page by keyset over (time, id)."""
    if not which.profile_prefixes or (which.platforms is not None and not which.platforms):
        return EventPage((), more=False)
    query = EventRow.select().order_by(EventRow.time.desc(), EventRow.id.desc()).limit(size + 1)
    for condition in conditions(which, after):
        query = query.where(condition)
    rows = list(query.execute(tx.database))
    return EventPage(tuple(map(to_event, rows[:size])), more=len(rows) > size)


def conditions(which: EventFilter, after: str) -> Iterator[Any]:
    for column in ("account_id", "profile_id", "caller", "kind"):
        wanted = getattr(which, column)
        if wanted is not None:
            yield getattr(EventRow, column) == wanted
    if which.kinds is not None:
        yield EventRow.kind.in_(sorted(which.kinds))
    if which.start_time is not None:
        yield EventRow.time >= micros(which.start_time)
    if which.end_time is not None:
        yield EventRow.time < micros(which.end_time)
    if which.platforms is not None:
        yield EventRow.platform.in_(sorted(which.platforms))
    if "" not in which.profile_prefixes:
        starts = [fn.SUBSTR(EventRow.profile_id, 1, len(prefix)) == prefix for prefix in which.profile_prefixes]
        yield any_of(starts)
    if after:
        time_text, _, event_id = after.partition(" ")
        time_us = micros(datetime.fromisoformat(time_text))
        # The first condition is implied by the second; it alone tells the index where to begin.
        yield EventRow.time <= time_us
        yield (EventRow.time < time_us) | (EventRow.id < event_id)


def any_of(alternatives: list[Any]) -> Any:
    found = alternatives[0]
    for each in alternatives[1:]:
        found |= each
    return found


# --- linking


def may_link(tx: Transaction, owner: str) -> bool:
    """A look that takes no lock: whether there is something to link, and nobody else has the lease."""
    if tx.run("any_unlinked", select_any_unlinked).fetchone() is None:
        return False
    return is_ours(tx, Lease(*tx.run("chain_lease", select_lease).fetchone()), owner)


def lag(tx: Transaction) -> timedelta:
    """How long the oldest event that is not linked yet has been waiting; nothing where there is none."""
    waiting = EventRow.select(EventRow.time).where(EventRow.chain_position.is_null()).order_by(EventRow.id).limit(1)
    oldest = waiting.first(tx.database)
    return timedelta() if oldest is None else max(timedelta(), tx.now - instant(oldest.time))


def select_any_unlinked() -> Any:
    return EventRow.select(EventRow.id).where(EventRow.chain_position.is_null()).limit(1)


def select_lease() -> Any:
    return ChainRow.select(*columns(ChainRow, Lease)).where(ChainRow.name == CHAIN)


def is_ours(tx: Transaction, chain: Any, owner: str) -> bool:
    return bool(chain.lease_owner == owner or chain.lease_expire_time <= tx.now_us)


def link(tx: Transaction, owner: str, lease: timedelta, limit: int) -> int:
    chain = tx.locked(ChainRow, CHAIN)
    if not is_ours(tx, chain, owner):
        return 0
    head = ChainPlace(chain.position, chain.link)
    links = []
    # Whoever has a row locked is erasing its personal part; it is linked the next time, as it is then.
    unlinked = tx.run("unlinked", lambda: tx.skip_locked(select_unlinked().limit(slot("limit"))), limit=limit)
    rows = unlinked.fetchall()
    for row, salt in zip(rows, salts(len(rows)), strict=True):
        event = Recorded(*row)
        hashed = personal_hash(salt, event)
        head = ChainPlace(head.position + 1, next_link(head, event, hashed))
        links.append(Link(head.position, event.id, salt, hashed, head.link))
    for block in blocks(links):
        insert = tx.statements.get(("links", len(block)), tx.database, partial(insert_links, len(block)))
        insert.run_in_order(tx.database, [value for each in block for value in each])
        mark = tx.statements.get(("linked", len(block)), tx.database, partial(mark_linked, len(block)))
        mark.run_in_order(tx.database, [each.event_id for each in block])
    moved = ChainRow.update(
        position=head.position, link=head.link, lease_owner=owner, lease_expire_time=micros(tx.now + lease)
    ).where(ChainRow.name == CHAIN, ChainRow.position == chain.position, ChainRow.link == chain.link)
    if moved.execute(tx.database) != 1:
        raise ChainMoved
    return len(links)


def salts(count: int) -> list[str]:
    """So many in hex, drawn at once: each draw lets other threads run, which would hold up the transaction."""
    drawn = secrets.token_bytes(SALT * count)
    return [drawn[start : start + SALT].hex() for start in range(0, len(drawn), SALT)]


def insert_links(count: int) -> Any:
    fields = [getattr(LinkRow, name) for name in Link._fields]
    return LinkRow.insert_many([[slot() for _ in fields] for _ in range(count)], fields=fields)


def mark_linked(count: int) -> Any:
    place = LinkRow.select(LinkRow.position).where(LinkRow.event_id == EventRow.id)
    return EventRow.update(chain_position=place).where(EventRow.id.in_([slot() for _ in range(count)]))


def select_unlinked() -> Any:
    unlinked = EventRow.chain_position.is_null()
    return EventRow.select(*columns(EventRow, Recorded)).where(unlinked).order_by(EventRow.id).tuples()


def prune(tx: Transaction, before: datetime, limit: int) -> int:
    """Erases the oldest events with their links; how many. The chain begins after them, and says so itself.

    It stops before a link whose event is missing: what is broken stays to be seen.
    """
    chain = tx.locked(ChainRow, CHAIN)
    old = []
    for each, event in next_links(tx.database, chain.start_position, limit):
        if event is None or event.time > micros(before):
            break
        old.append(each)
    if not old:
        return 0
    start = ChainPlace(old[-1].position, old[-1].link)
    EventRow.delete().where(EventRow.id.in_([each.event_id for each in old])).execute(tx.database)
    LinkRow.delete().where(LinkRow.position <= start.position).execute(tx.database)
    ChainRow.update(start_position=start.position, start_link=start.link).where(ChainRow.name == CHAIN).execute(
        tx.database
    )
    tx.event(EventKind.AUDIT_PRUNED, **start._asdict())
    return len(old)


# --- verifying


def verify(database: Database, noted: ChainPlace | None, repeatable: bool) -> ChainReport:
    with snapshot(database, repeatable):
        chain = ChainRow.select().where(ChainRow.name == CHAIN).get(database)
        verifier = Verifier(ChainPlace(chain.start_position, chain.start_link), noted)
        while (some := next_links(database, verifier.head.position, READ_AT_ONCE)) and all(
            verifier.follow(each, event) for each, event in some
        ):
            pass
        for row in inserted(database):
            verifier.inserted(row.chain_position, row.id)
        tail = [Recorded(*row) for row in select_unlinked().execute(database)]
        for event in tail:
            verifier.explain(event)
        verifier.end(ChainPlace(chain.position, chain.link))
        return ChainReport(
            start=verifier.start,
            first_time=verifier.first_time,
            head=verifier.head,
            broken=verifier.broken,
            redacted=verifier.redacted,
            tail=tuple(tail),
        )


@contextmanager
def snapshot(database: Database, repeatable: bool) -> Iterator[None]:
    """What is read in it is one instant; others write meanwhile. SQLite's transactions are so by themselves."""
    with database.atomic():
        if repeatable:
            database.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            database.execute_sql("SET LOCAL statement_timeout = 0")  # one statement looks at every event
        yield


def next_links(database: Database, after: int, limit: int) -> list[tuple[Link, Recorded | None]]:
    query = (
        LinkRow.select(*columns(LinkRow, Link), *columns(EventRow, Recorded))
        .join(EventRow, JOIN.LEFT_OUTER, on=(LinkRow.event_id == EventRow.id))
        .where(LinkRow.position > after)
        .order_by(LinkRow.position)
        .limit(limit)
        .tuples()
    )
    width = len(Link._fields)
    return [
        (Link(*row[:width]), None if row[width] is None else Recorded(*row[width:])) for row in query.execute(database)
    ]


def columns(model: Any, of: Any) -> list[Any]:
    return [getattr(model, name) for name in of._fields]


def inserted(database: Database) -> list[Any]:
    """Events that say that they were linked where no link knows them."""
    known = (LinkRow.event_id == EventRow.id) & (LinkRow.position == EventRow.chain_position)
    query = (
        EventRow.select(EventRow.id, EventRow.chain_position)
        .join(LinkRow, JOIN.LEFT_OUTER, on=known)
        .where(EventRow.chain_position.is_null(False), LinkRow.position.is_null())
        .order_by(EventRow.chain_position)
        .limit(1)
    )
    return list(query.execute(database))
