"""SQL of operating: the story of an account, what operators said about platforms and callers, counts, heartbeat."""

from __future__ import annotations

from collections.abc import Sequence

from peewee import SQL, Database, fn

from server.accounts.audit import Origin
from server.accounts.callers import as_caller
from server.accounts.events import Event, EventKind, Refusal
from server.accounts.grants import GrantState
from server.accounts.model import Block, Pause
from server.storage.audit import to_event
from server.storage.schema import BlockRow, CounterRow, EventRow, GrantRow, PauseRow
from server.storage.transaction import Transaction, instant

NO_USE = SQL(f"kind NOT IN ('{EventKind.ACCOUNT_USED}', '{EventKind.ACCOUNT_USE_FAILED}')")
"""As text: an index is made for it, which no database would see to fit parameters."""


def events_of(tx: Transaction, account_id: str, limit: int) -> tuple[Event, ...]:
    """Their ids are UUIDv7s, so their order is that of their times. What was refused happened to no account.

    Its uses would drown the rest; they are told by their own list.
    """
    its = (EventRow.account_id == account_id) & (EventRow.kind != EventKind.CALL_REFUSED) & NO_USE
    newest = EventRow.select().where(its).order_by(EventRow.id.desc()).limit(limit)
    rows = list(newest.execute(tx.database))
    return tuple(map(to_event, reversed(rows)))


def pauses(tx: Transaction) -> tuple[Pause, ...]:
    return tuple(
        Pause(row.platform, row.reason, row.operator, instant(row.time))
        for row in PauseRow.select().order_by(PauseRow.platform).execute(tx.database)
    )


def set_pause(tx: Transaction, platform: str, reason: str, operator: str) -> None:
    said = {"reason": reason, "operator": operator, "time": tx.now_us}
    PauseRow.insert(platform=platform, **said).on_conflict(conflict_target=[PauseRow.platform], update=said).execute(
        tx.database
    )
    kind = EventKind.PLATFORM_PAUSED if reason else EventKind.PLATFORM_RESUMED
    tx.event(kind, platform=platform, caller=as_caller(operator), reason=reason)


def blocks(tx: Transaction) -> tuple[Block, ...]:
    return tuple(
        Block(row.caller, row.reason, row.operator, instant(row.time)) for row in BlockRow.select().execute(tx.database)
    )


def set_block(tx: Transaction, caller: str, reason: str, operator: str) -> None:
    said = {"reason": reason, "operator": operator, "time": tx.now_us}
    BlockRow.insert(caller=caller, **said).on_conflict(conflict_target=[BlockRow.caller], update=said).execute(
        tx.database
    )
    kind = EventKind.CALLER_BLOCKED if reason else EventKind.CALLER_UNBLOCKED
    by = as_caller(operator)
    tx.event(kind, caller=by, blocked=caller, reason=reason)


def record_refusals(tx: Transaction, refusals: Sequence[Refusal]) -> None:
    for each in refusals:
        tx.event(
            EventKind.CALL_REFUSED,
            account_id=each.account_id,
            caller=each.caller,
            result=each.reason,
            origin=Origin(each.peer, each.request_id),
            method=each.method,
            count=each.count,
            **each.facts,
        )


def census(database: Database) -> dict[tuple[str, str], int]:
    """Grants by platform and state: those that are not ready are few, the others are counted by their due times."""
    count = fn.COUNT(GrantRow.id)
    waiting = GrantRow.select(GrantRow.platform, count).where(GrantRow.due_time.is_null(False))
    others = GrantRow.select(GrantRow.platform, GrantRow.state, count).where(GrantRow.state != GrantState.READY)
    due = GrantRow.select(GrantRow.platform, count).where(
        GrantRow.state != GrantState.READY, GrantRow.due_time.is_null(False)
    )
    ready = dict(waiting.group_by(GrantRow.platform).tuples().execute(database))
    not_ready = dict(due.group_by(GrantRow.platform).tuples().execute(database))
    counted = {
        (platform, str(state)): number
        for platform, state, number in others.group_by(GrantRow.platform, GrantRow.state).tuples().execute(database)
    }
    for platform, number in ready.items():
        counted[platform, str(GrantState.READY)] = number - not_ready.get(platform, 0)
    return counted


def beat(tx: Transaction) -> None:
    """A write that changes something: one that changes nothing succeeds on a full disk."""
    CounterRow.update(value=CounterRow.value + 1).where(CounterRow.name == "heartbeat").execute(tx.database)
