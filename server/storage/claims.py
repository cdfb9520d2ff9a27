"""SQL of claims: which grants are due, and the lease on them that is durable before any byte is sent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from peewee import Case, fn

from server.accounts.events import EventKind
from server.accounts.grants import ClaimedGrant, GrantState
from server.accounts.model import StatusReason
from server.storage import accounts, restored
from server.storage.grants import DEAD
from server.storage.schema import GrantRow, in_state
from server.storage.statement import slot
from server.storage.token_sets import open_grant
from server.storage.transaction import Transaction, instant, micros
from server.storage.vault import BROKEN_WAIT, SealBroken

log = logging.getLogger(__name__)


def free_dead_leases(tx: Transaction) -> int:
    """Lets grants that were claimed come up again at once; the engine decides what an unanswered send means."""
    GrantRow.update(lease_expire_time=tx.now_us).where(in_state(GrantState.REVOKING)).execute(tx.database)
    return int(GrantRow.update(due_time=tx.now_us).where(in_state(GrantState.SENT)).execute(tx.database))


def any_due(tx: Transaction, platform: str, *, refreshable: bool) -> bool:
    """A look that takes no lock. A grant that is being refreshed is due again when its lease ends."""

    def query() -> Any:
        return GrantRow.select(GrantRow.id).where(is_due()).limit(1)

    found = tx.run("due", query, platform=platform, refreshable=refreshable, now=tx.now_us)
    return found.fetchone() is not None


def is_due() -> Any:
    return (
        (GrantRow.platform == slot("platform"))
        & (GrantRow.refreshable == slot("refreshable"))
        & (GrantRow.due_time <= slot("now"))
    )


class DueGrant(NamedTuple):
    """What a claim needs of a grant's row."""

    id: str
    profile_id: str
    platform: str
    generation: int
    token_set: bytes
    state: str
    sends: int
    attempts: int
    due_time: int


def lock_due(tx: Transaction, platform: str, *, refreshable: bool, limit: int, unspent: bool = False) -> list[DueGrant]:
    """The rows that are due, soonest first. Those that another process is taking are passed over, so that several share
    the work instead of queueing for it."""

    def query() -> Any:
        columns = [getattr(GrantRow, name) for name in DueGrant._fields]
        due = is_due() & (GrantRow.sends == 0) if unspent else is_due()
        query = GrantRow.select(*columns).where(due).order_by(GrantRow.due_time).limit(slot("limit"))
        return tx.skip_locked(query)

    found = tx.run(("lock_due", unspent), query, platform=platform, refreshable=refreshable, now=tx.now_us, limit=limit)
    return [DueGrant(*row) for row in found.fetchall()]


def claim_due(
    tx: Transaction, platform: str, owner: str, lease: timedelta, limit: int, first_sends_only: bool
) -> list[ClaimedGrant]:
    return claim(tx, lock_due(tx, platform, refreshable=True, limit=limit, unspent=first_sends_only), owner, lease)


def claim_these(
    tx: Transaction,
    grant_ids: Sequence[str],
    owner: str,
    lease: timedelta,
    min_interval: timedelta | None,
    caller: str,
) -> list[ClaimedGrant]:
    due = GrantRow.due_time <= tx.now_us
    early = GrantRow.state.in_([GrantState.READY, GrantState.UNKNOWN])
    if min_interval is not None:
        since = fn.COALESCE(GrantRow.last_refresh_time, GrantRow.create_time)
        early = (
            (GrantRow.state == GrantState.READY) & (GrantRow.attempts == 0) & (since <= micros(tx.now - min_interval))
        )
    named = GrantRow.id.in_(list(grant_ids)) & (GrantRow.refreshable == True)  # noqa: E712 (SQL)
    # Whoever finds a named grant locked waits: so it sees the claim of another process, and can wait for its result.
    rows = tx.lock_all(GrantRow.select().where(named & (due | early)).order_by(GrantRow.id))
    for row in rows if caller else ():
        # Recorded before anything is sent: a use of a grant that cannot be recorded does not happen.
        tx.event(
            EventKind.REFRESH_REQUESTED,
            account_id=row.account_id,
            profile_id=row.profile_id,
            platform=row.platform,
            caller=caller,
        )
    return claim(tx, rows, owner, lease, caller)


def claim(tx: Transaction, rows: list[Any], owner: str, lease: timedelta, caller: str = "") -> list[ClaimedGrant]:
    """Intent, durable before any byte is sent: the lease, and one more possible send of this refresh token.

    Who finds an earlier claim that was never ended takes over the send that was counted with it. Raises GoneBack.
    """
    if rows:
        # Looked at after the rows: whoever has brought them back from a backup committed before.
        restored.refuse_gone_back(tx)
    lease_expire_time = tx.now + lease
    claimed = []
    for row in rows:
        try:
            token_set = open_grant(tx.vault, row)
        except SealBroken:
            park_broken(tx, row.id)
            continue
        claimed.append(
            ClaimedGrant(
                id=row.id,
                profile_id=row.profile_id,
                platform=row.platform,
                generation=row.generation,
                token_set=token_set,
                found=GrantState(row.state),
                sends=row.sends,
                attempts=row.attempts,
                due_time=tx.now if row.due_time is None else instant(row.due_time),
                claim_time=tx.now,
                owner=owner,
                lease_expire_time=lease_expire_time,
                caller=caller,
            )
        )
    if claimed:
        take(tx, [grant.id for grant in claimed], owner, micros(lease_expire_time))
    return claimed


def take(tx: Transaction, grant_ids: list[str], owner: str, lease_expire_us: int) -> None:
    """Enters a lease on locked grants, which are due again when it ends."""
    names = [f"id{number}" for number in range(len(grant_ids))]

    def query() -> Any:
        return GrantRow.update(
            state=GrantState.SENT,
            sends=Case(None, [(GrantRow.state == GrantState.SENT, GrantRow.sends)], GrantRow.sends + 1),
            lease_owner=slot("owner"),
            lease_expire_time=slot("lease_expire"),
            due_time=slot("lease_expire"),
        ).where(GrantRow.id.in_([slot(name) for name in names]))

    ids = dict(zip(names, grant_ids, strict=True))
    tx.run(("take", len(names)), query, owner=owner, lease_expire=lease_expire_us, **ids)


def park_broken(tx: Transaction, grant_id: str) -> None:
    log.error("a sealed token set does not open", extra={"grant_id": grant_id})
    GrantRow.update(due_time=micros(tx.now + BROKEN_WAIT), last_error="the sealed token set does not open").where(
        GrantRow.id == grant_id
    ).execute(tx.database)


def expire_ended(tx: Transaction, platform: str, limit: int) -> int:
    ended = lock_due(tx, platform, refreshable=False, limit=limit)
    for row in ended:
        GrantRow.update(**DEAD).where(GrantRow.id == row.id).execute(tx.database)
        accounts.expire(tx, row.id, StatusReason.NOT_REFRESHABLE, "")
    return len(ended)
