"""SQL of watching: the numbered events in the order of their commits, with their accounts as they are by now.

Numbers are taken from one row, which stays locked until the commit: they become visible in their order, without gaps.
So a gap means that events were pruned, and an event that is another than it was, that the database was restored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from peewee import JOIN, SQL

from server.accounts.changes import Change, Mark
from server.accounts.events import EventKind
from server.accounts.grants import GrantState
from server.accounts.model import Account, Status, StatusReason
from server.storage import accounts
from server.storage.schema import AccountRow, CounterRow, ErasedAccountRow, ErasureRow, EventRow, GrantRow
from server.storage.statement import slot
from server.storage.transaction import Transaction, instant, micros

UNTOLD = SQL("NOT refreshable AND NOT end_told")
"""As the index has it."""


class Numbered(NamedTuple):
    """What watching needs of an event."""

    number: int
    id: str
    time: int
    kind: str
    account_id: str
    profile_id: str
    platform: str
    facts: str


def newest(tx: Transaction) -> Mark:
    """The last change that is committed: one look, at one instant."""

    def query() -> Any:
        event = EventRow.number == CounterRow.value
        counter = CounterRow.select(CounterRow.value, EventRow.id).join(EventRow, JOIN.LEFT_OUTER, on=event)
        return counter.where(CounterRow.name == "events")

    number, event_id = tx.run("newest_change", query).fetchone()
    return Mark(number, event_id or "")


def since(tx: Transaction, mark: Mark, limit: int) -> tuple[Change, ...] | None:
    """Up to `limit` changes that follow; None if some are gone, or the database has gone back behind the mark."""
    found = events_from(tx, mark.number, limit + 1)
    if found and found[0].number == mark.number:
        if found[0].id != mark.event_id:
            return None
        found = found[1:]
    elif mark.event_id or newest(tx).number < mark.number:
        return None
    return changes(tx, found) if is_whole(found, mark.number) else None


def recent(tx: Transaction, limit: int) -> tuple[Change, ...]:
    """The newest changes, as far as none between them is gone."""
    number = newest(tx).number
    found = events_from(tx, max(1, number - limit + 1), limit)
    gaps = [place for place, (one, next_one) in enumerate(pairwise(found), 1) if next_one.number != one.number + 1]
    return changes(tx, found[gaps[-1] if gaps else 0 :])


def is_whole(found: Sequence[Numbered], after: int) -> bool:
    return all(event.number == number for number, event in enumerate(found, after + 1))


def events_from(tx: Transaction, number: int, limit: int) -> list[Numbered]:
    def query() -> Any:
        columns = [getattr(EventRow, name) for name in Numbered._fields]
        events = EventRow.select(*columns).where(EventRow.number >= slot("number"))
        return events.order_by(EventRow.number).limit(slot("limit"))

    return [Numbered(*row) for row in tx.run("events_from", query, number=number, limit=limit).fetchall()]


def changes(tx: Transaction, found: Sequence[Numbered]) -> tuple[Change, ...]:
    ids = {event.account_id for event in found}
    present = {account.id: account for account in accounts.several(tx.database, tx.statements, sorted(ids))}
    return tuple(change(tx, event, present.get(event.account_id)) for event in found)


def change(tx: Transaction, event: Numbered, account: Account | None) -> Change:
    profile_id, digest = event.profile_id, ""
    if event.kind == EventKind.ACCOUNT_ERASED and not profile_id:
        profile_id, digest = erased_profile(tx, event.account_id)
    reason = json.loads(event.facts).get("reason", "") if event.kind == EventKind.EXPIRED else ""
    return Change(
        mark=Mark(event.number, event.id),
        kind=event.kind,
        time=instant(event.time),
        account_id=event.account_id,
        platform=event.platform,
        reason=StatusReason[reason] if reason in StatusReason.__members__ else StatusReason.NONE,
        account=account,
        profile_id=profile_id,
        profile_digest=digest,
    )


def erased_profile(tx: Transaction, account_id: str) -> tuple[str, str]:
    """Whose account a deletion erased: the profile while the erasure still knows it, and its digest."""
    query = (
        ErasureRow.select(ErasureRow.profile_id, ErasureRow.profile_digest)
        .join(ErasedAccountRow, on=(ErasedAccountRow.erasure_id == ErasureRow.id))
        .where(ErasedAccountRow.account_id == account_id)
    )
    row = query.first(tx.database)
    return ("", "") if row is None else (row.profile_id or "", row.profile_digest)


# --- grants that cannot be refreshed


def ends_soon(tx: Transaction, ahead: timedelta) -> Any:
    return UNTOLD & (GrantRow.access_token_expire_time <= micros(tx.now + ahead))


def any_ends_soon(tx: Transaction, ahead: timedelta) -> bool:
    """A look that takes no lock."""
    return GrantRow.select(GrantRow.id).where(ends_soon(tx, ahead)).limit(1).first(tx.database) is not None


def tell_ends(tx: Transaction, ahead: timedelta, limit: int) -> int:
    """Records, once for a grant, that it ends soon; how many were looked at. One that has ended says so itself."""
    ending = GrantRow.select().where(ends_soon(tx, ahead)).order_by(GrantRow.access_token_expire_time).limit(limit)
    rows = tx.lock_free(ending)
    for row in rows:
        GrantRow.update(end_told=True).where(GrantRow.id == row.id).execute(tx.database)
        if row.state == GrantState.READY and row.access_token_expire_time > tx.now_us:
            tell_end(tx, row)
    return len(rows)


def tell_end(tx: Transaction, grant: Any) -> None:
    active = (AccountRow.grant_id == grant.id) & (AccountRow.status == Status.ACTIVE.value)
    for account in AccountRow.select().where(active).order_by(AccountRow.id).execute(tx.database):
        tx.event_of(account, EventKind.EXPIRING_SOON, end_time=instant(grant.access_token_expire_time).isoformat())
