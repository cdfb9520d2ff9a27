"""SQL of a restore: which grants may have been refreshed since the backup, and what operators decide about them.

A refresh token that was replaced since the backup must not be sent again: many platforms then end the whole grant. So
each that works once is suspect. The access token is served while it lives.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peewee import SQL, Case, Database, fn

from server.accounts.callers import as_caller
from server.accounts.errors import StoreUnavailable
from server.accounts.events import EventKind
from server.accounts.grants import GrantState
from server.accounts.model import StatusReason
from server.accounts.timing import REPLAY_MARGIN
from server.storage import accounts, key_use
from server.storage.grants import DEAD
from server.storage.schema import CounterRow, GrantRow
from server.storage.transaction import Transaction, instant

log = logging.getLogger(__name__)

BACKUP = "backup"
"""The counter that only a backup has: when it was made."""
SERVED = "served"
"""The counter that tells until when the database was served, in microseconds since 1970."""

WHY = "restored from a backup: its refresh token may be spent; an operator decides (grants suspect)"
HOW = "refresh tokens that were replaced since must not be sent again; run: python -m server --config FILE restored"


class GoneBack(StoreUnavailable):
    """The database is a backup, or older than it was when this process last looked."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """Some of the suspect grants; None means all."""

    platform: str | None = None
    grant_ids: Sequence[str] = ()
    ended: bool | None = None
    """Whether the access token has ended."""

    def condition(self, now_us: int) -> Any:
        found = GrantRow.state == GrantState.SUSPECT
        if self.platform is not None:
            found &= GrantRow.platform == self.platform
        if self.grant_ids:
            found &= GrantRow.id.in_(list(self.grant_ids))
        if self.ended is not None:
            has_ended = fn.COALESCE(GrantRow.access_token_expire_time <= now_us, SQL("FALSE"))
            found &= has_ended if self.ended else ~has_ended
        return found


def backup_time(database: Database) -> datetime | None:
    """When the backup was made that this database is; None if it is none, or was put to use."""
    row = CounterRow.select().where(CounterRow.name == BACKUP).first(database)
    return None if row is None else instant(row.value)


def served_until(database: Database) -> int:
    row = CounterRow.select().where(CounterRow.name == SERVED).first(database)
    return 0 if row is None else int(row.value)


def sign(tx: Transaction, known_us: int) -> str:
    """What shows that the database was restored, to who knows until when it was served; empty if nothing does."""

    def query() -> Any:
        return CounterRow.select(CounterRow.name, CounterRow.value).where(CounterRow.name.in_([BACKUP, SERVED]))

    told = dict(tx.run("signs of a restore", query).fetchall())
    until = told.get(SERVED, 0)
    if BACKUP in told:
        return f"this database is a backup of {shown(told[BACKUP])}; {HOW}"
    if until < known_us:
        times = f"it says that it was served until {shown(until)}, and it was until {shown(known_us)}"
        return f"this database has gone back: {times}; {HOW}"
    return ""


def refuse_gone_back(tx: Transaction) -> None:
    """Raises GoneBack if the database was restored under this process; from then on always, until it is stopped."""
    served = tx.served
    if not served.gone_back and (why := sign(tx, served.until_us)):
        served.gone_back = why
        log.critical("the database has gone back while it is served; nothing is claimed", extra={"why": why})
    if served.gone_back:
        raise GoneBack(f"{served.gone_back}, and start the server anew")


def shown(us: int) -> str:
    return f"{instant(us):%Y-%m-%d %H:%M:%S} UTC"


def serve(tx: Transaction) -> int:
    """Notes that the database is served now, unless it has gone back; until when. Raises GoneBack."""
    tx.locked(CounterRow, SERVED)
    refuse_gone_back(tx)
    return serve_until(tx.database, tx.now_us)


def serve_until(database: Database, now_us: int) -> int:
    """What the database says never goes back."""
    later = Case(None, [(CounterRow.value >= now_us, CounterRow.value + 1)], now_us)
    insert = CounterRow.insert(name=SERVED, value=now_us).on_conflict(
        conflict_target=[CounterRow.name], update={CounterRow.value: later}
    )
    insert.execute(database)
    return served_until(database)


def may_be_spent(multiple_use: Sequence[str]) -> Any:
    """Grants that may have been refreshed since, but for platforms whose refresh tokens work any number of times."""
    live = GrantRow.state.in_([GrantState.READY, GrantState.SENT, GrantState.UNKNOWN])
    return live & (GrantRow.refreshable == True) & GrantRow.platform.not_in(list(multiple_use))  # noqa: E712 (SQL)


def count(tx: Transaction, which: Any) -> int:
    return int(GrantRow.select().where(which).count(tx.database))


def suspect(tx: Transaction, multiple_use: Sequence[str], limit: int) -> int:
    """Makes so many grants suspect; how many. Without a due time nothing claims them, on demand neither."""
    some = GrantRow.select(GrantRow.id).where(may_be_spent(multiple_use)).limit(limit)
    changed = GrantRow.update(
        state=GrantState.SUSPECT,
        due_time=None,
        sends=Case(None, [(GrantRow.sends == 0, 1)], GrantRow.sends),
        lease_owner=None,
        lease_expire_time=None,
        last_error=WHY,
    ).where(GrantRow.id.in_(some))
    return int(changed.execute(tx.database))


def put_to_use(tx: Transaction, operator: str, suspects: int, least_us: int) -> None:
    """The restore is over: the database may be served from now on, and nobody serves it yet."""
    made = backup_time(tx.database)
    CounterRow.delete().where(CounterRow.name == BACKUP).execute(tx.database)
    serve_until(tx.database, max(tx.now_us, least_us))
    key_use.forget_all(tx.database)
    tx.event(
        EventKind.RESTORED,
        caller=as_caller(operator),
        suspects=suspects,
        backup_time="" if made is None else made.isoformat(),
    )


def suspects(tx: Transaction) -> list[tuple[str, int, int]]:
    """Platform, suspect grants whose access token lives, and those whose has ended."""
    ended = Case(None, [(GrantRow.access_token_expire_time <= tx.now_us, 1)], 0)
    query = GrantRow.select(GrantRow.platform, fn.COUNT(GrantRow.id), fn.SUM(ended))
    found = query.where(GrantRow.state == GrantState.SUSPECT).group_by(GrantRow.platform).order_by(GrantRow.platform)
    return [(name, int(all_) - int(gone), int(gone)) for name, all_, gone in found.tuples().execute(tx.database)]


def try_again(tx: Transaction, which: Suspects, operator: str, limit: int) -> int:
    """Lets refresh tokens be sent once more, as any of unknown fate is: shortly before the access token ends."""
    margin = round(REPLAY_MARGIN.total_seconds() * 1_000_000)
    near_end = GrantRow.access_token_expire_time - margin
    some = GrantRow.select(GrantRow.id).where(which.condition(tx.now_us)).limit(limit)
    changed = GrantRow.update(
        state=GrantState.UNKNOWN,
        sends=1,
        due_time=Case(None, [(near_end > tx.now_us, near_end)], tx.now_us),
    ).where(GrantRow.id.in_(some))
    if tried := int(changed.execute(tx.database)):
        by = as_caller(operator)
        tx.event(EventKind.SUSPECTS_TRIED, caller=by, suspects=tried)
    return tried


def give_up(tx: Transaction, which: Suspects, operator: str, limit: int) -> int:
    """Says of so many that they are lost, without asking the platform: their users have to connect again."""
    rows = tx.lock_all(GrantRow.select(GrantRow.id).where(which.condition(tx.now_us)).limit(limit))
    for row in rows:
        GrantRow.update(**DEAD).where(GrantRow.id == row.id).execute(tx.database)
        accounts.expire(tx, row.id, StatusReason.REFRESH_OUTCOME_LOST, WHY, as_caller(operator))
    return len(rows)
