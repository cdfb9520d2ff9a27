"""SQL of grants: claim, commit by compare-and-swap on the generation, release, expire.

The generation fences: a token set is stored only over the generation it was refreshed from.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from peewee import Case, Database, fn

from server.accounts.events import EventKind
from server.accounts.grants import (
    ClaimedGrant,
    Commit,
    GrantRecord,
    GrantState,
    IdentityRead,
    NewGrant,
    Refreshed,
    Retry,
    TokenSet,
)
from server.accounts.model import StatusReason
from server.storage import accounts, revocations, unread
from server.storage.schema import GrantRow
from server.storage.statement import slot
from server.storage.token_sets import grant_context, open_grant, pack, unpack
from server.storage.transaction import Transaction, instant, micros, optional_instant, optional_micros
from server.storage.vault import SealBroken

log = logging.getLogger(__name__)

POISON_WAIT = timedelta(hours=1)
"""How long a grant whose sealed value does not open is left alone; it must not hold up the others."""


def add(tx: Transaction, account_id: str, profile_id: str, platform: str, grant: NewGrant) -> None:
    token_set = grant.token_set
    GrantRow.insert(
        id=grant.id,
        account_id=account_id,
        profile_id=profile_id,
        platform=platform,
        state=GrantState.READY,
        generation=1,
        token_set=tx.vault.seal(pack(token_set), grant_context("token_set", grant.id, profile_id, platform, 1)),
        refreshable=token_set.refresh_token is not None,
        access_token_expire_time=optional_micros(token_set.expire_time),
        due_time=optional_micros(grant.due_time),
        identity_due_time=micros(grant.identity_due_time),
        create_time=tx.now_us,
    ).execute(tx.database)


def get(tx: Transaction, grant_id: str) -> Any:
    """The row, locked, or None."""
    return tx.lock(GrantRow.select().where(GrantRow.id == grant_id))


def record(tx: Transaction, grant_id: str) -> GrantRecord | None:
    row = GrantRow.select().where(GrantRow.id == grant_id).first(tx.database)
    if row is None:
        return None
    return GrantRecord(
        id=row.id,
        platform=row.platform,
        state=GrantState(row.state),
        generation=row.generation,
        refreshable=row.refreshable,
        access_token_expire_time=optional_instant(row.access_token_expire_time),
        due_time=optional_instant(row.due_time),
        lease_owner=row.lease_owner or "",
        lease_expire_time=optional_instant(row.lease_expire_time),
        sends=row.sends,
        attempts=row.attempts,
        last_error=row.last_error,
        last_refresh_time=optional_instant(row.last_refresh_time),
        create_time=instant(row.create_time),
        has_candidate=row.candidate is not None,
        has_unread_reply=row.unread_reply is not None,
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


def newest(tx: Transaction, grant_id: str) -> TokenSet | None:
    """Raises SealBroken."""
    row = GrantRow.select().where(GrantRow.id == grant_id).first(tx.database)
    return None if row is None or row.state in (GrantState.REVOKING, GrantState.DEAD) else open_grant(tx, row)


# --- refreshing


def free_dead_leases(tx: Transaction) -> int:
    """Lets grants that were claimed come up again at once; the engine decides what an unanswered send means."""
    GrantRow.update(lease_expire_time=tx.now_us).where(GrantRow.state == GrantState.REVOKING).execute(tx.database)
    return int(GrantRow.update(due_time=tx.now_us).where(GrantRow.state == GrantState.SENT).execute(tx.database))


def any_due(tx: Transaction, platform: str, *, refreshable: bool) -> bool:
    """A look that takes no lock. A grant that is being refreshed is due again when its lease ends."""
    statement = tx.statements.get(
        "due",
        tx.database,
        lambda: (
            GrantRow.select(GrantRow.id)
            .where(
                GrantRow.platform == slot("platform"),
                GrantRow.refreshable == slot("refreshable"),
                GrantRow.due_time <= slot("now"),
            )
            .limit(1)
        ),
    )
    values = {"platform": platform, "refreshable": refreshable, "now": tx.now_us}
    return statement.run(tx.database, **values).fetchone() is not None


def lock_due(tx: Transaction, platform: str, *, refreshable: bool, limit: int, unspent: bool = False) -> list[Any]:
    """The rows that are due, soonest first. Those that another process is taking are passed over, so that several share
    the work instead of queueing for it."""
    due = (GrantRow.platform == platform) & (GrantRow.refreshable == refreshable) & (GrantRow.due_time <= tx.now_us)
    if unspent:
        due &= GrantRow.sends == 0
    return tx.lock_free(GrantRow.select().where(due).order_by(GrantRow.due_time).limit(limit))


def claim_due(
    tx: Transaction, platform: str, owner: str, lease: timedelta, limit: int, first_sends_only: bool
) -> list[ClaimedGrant]:
    return claim(tx, lock_due(tx, platform, refreshable=True, limit=limit, unspent=first_sends_only), owner, lease)


def claim_these(
    tx: Transaction, grant_ids: Sequence[str], owner: str, lease: timedelta, min_interval: timedelta, caller: str
) -> list[ClaimedGrant]:
    refreshed_before = micros(tx.now - min_interval)
    old_enough = fn.COALESCE(GrantRow.last_refresh_time, GrantRow.create_time) <= refreshed_before
    early = (GrantRow.state == GrantState.READY) & (GrantRow.attempts == 0) & old_enough
    claimable = (GrantRow.refreshable == True) & ((GrantRow.due_time <= tx.now_us) | early)  # noqa: E712 (SQL)
    rows = tx.lock_free(GrantRow.select().where(GrantRow.id.in_(list(grant_ids)), claimable))
    return claim(tx, rows, owner, lease, caller)


def claim(tx: Transaction, rows: list[Any], owner: str, lease: timedelta, caller: str = "") -> list[ClaimedGrant]:
    """Intent, durable before any byte is sent: the lease, and one more possible send of this refresh token.

    Who finds an earlier claim that was never ended takes over the send that was counted with it.
    """
    lease_expire_time = tx.now + lease
    claimed = []
    for row in rows:
        try:
            token_set = open_grant(tx, row)
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
        GrantRow.update(
            state=GrantState.SENT,
            sends=Case(None, [(GrantRow.state == GrantState.SENT, GrantRow.sends)], GrantRow.sends + 1),
            lease_owner=owner,
            lease_expire_time=micros(lease_expire_time),
            due_time=micros(lease_expire_time),
        ).where(GrantRow.id.in_([grant.id for grant in claimed])).execute(tx.database)
    return claimed


def park_broken(tx: Transaction, grant_id: str) -> None:
    log.error("a sealed token set does not open", extra={"grant_id": grant_id})
    GrantRow.update(due_time=micros(tx.now + POISON_WAIT), last_error="the sealed token set does not open").where(
        GrantRow.id == grant_id
    ).execute(tx.database)


def commit_refresh(tx: Transaction, refreshed: Refreshed) -> Commit:
    """One compare-and-swap; only who loses it looks closer."""
    if swap(tx, refreshed):
        if set(refreshed.token_set.scopes) != set(refreshed.scopes_before):
            accounts.update_scopes(tx, refreshed.grant_id, refreshed.token_set.scopes)
        return Commit.STORED
    row = get(tx, refreshed.grant_id)
    if row is None:
        # Its account was revoked and its stub swept meanwhile: what came so late must not stay live at the platform.
        log.warning("a refreshed grant is gone; its new pair is revoked", extra={"grant_id": refreshed.grant_id})
        revoke_late(tx, refreshed)
        return Commit.REVOKING
    if row.state == GrantState.REVOKING:
        revocations.add_for_retired(tx, row, refreshed.token_set)
        revocations.drop_stub(tx, row)
        return Commit.REVOKING
    if row.generation == refreshed.generation + 1 and open_grant(tx, row) == refreshed.token_set:
        return Commit.STORED  # an earlier try whose outcome was not known
    if row.state == GrantState.DEAD:
        # Its account is EXPIRED, and only the connect flow brings it back: the late pair must not stay live.
        revoke_late(tx, refreshed)
        unread.forget(tx, row.id)
    else:
        park_candidate(tx, row, refreshed.token_set)
    return Commit.LOST


def revoke_late(tx: Transaction, refreshed: Refreshed) -> None:
    """A pair that no account will use goes to the outbox."""
    revocations.add(
        tx,
        refreshed.token_set,
        account_id=None,
        grant_id=refreshed.grant_id,
        profile_id=refreshed.profile_id,
        platform=refreshed.platform,
        due_us=tx.now_us,
    )


def park_candidate(tx: Transaction, row: Any, token_set: TokenSet) -> None:
    """The pair of the loser of a swap may be the live one: it is tried before the grant is ever called dead."""
    bound = grant_context("candidate", row.id, row.profile_id, row.platform, row.generation)
    candidate = tx.vault.seal(pack(token_set), bound)
    GrantRow.update(candidate=candidate).where(GrantRow.id == row.id).execute(tx.database)


def swap(tx: Transaction, refreshed: Refreshed) -> bool:
    """Puts the new token set in the place of the generation that was spent for it; says whether that was there."""
    statement = tx.statements.get(
        "commit_refresh",
        tx.database,
        lambda: GrantRow.update(
            state=GrantState.READY,
            generation=slot("generation"),
            token_set=slot("token_set"),
            candidate=None,
            unread_reply=None,
            refreshable=slot("refreshable"),
            access_token_expire_time=slot("expire"),
            due_time=slot("due"),
            lease_owner=None,
            lease_expire_time=None,
            sends=0,
            attempts=0,
            last_error="",
            last_refresh_time=slot("now"),
        ).where(
            GrantRow.id == slot("grant_id"),
            GrantRow.generation == slot("spent"),
            GrantRow.state.not_in([GrantState.REVOKING, GrantState.DEAD]),
        ),
    )
    token_set, generation = refreshed.token_set, refreshed.generation + 1
    bound = grant_context("token_set", refreshed.grant_id, refreshed.profile_id, refreshed.platform, generation)
    cursor = statement.run(
        tx.database,
        grant_id=refreshed.grant_id,
        spent=refreshed.generation,
        generation=generation,
        token_set=tx.vault.seal(pack(token_set), bound),
        refreshable=token_set.refresh_token is not None,
        expire=optional_micros(token_set.expire_time),
        due=optional_micros(refreshed.due_time),
        now=tx.now_us,
    )
    return bool(tx.database.rows_affected(cursor) == 1)


def still_ours(claimed: ClaimedGrant) -> Any:
    return (
        (GrantRow.id == claimed.id)
        & (GrantRow.generation == claimed.generation)
        & (GrantRow.state == GrantState.SENT)
        & (GrantRow.lease_owner == claimed.owner)
        & (GrantRow.lease_expire_time == micros(claimed.lease_expire_time))
    )


def release(tx: Transaction, claimed: ClaimedGrant, retry: Retry, error: str, reply: bytes) -> bool:
    row = get(tx, claimed.id)
    if row is not None and row.state == GrantState.REVOKING:
        revocations.drop_stub(tx, row)
        return False
    unread_reply = {"unread_reply": unread.added(tx, row, reply)} if row is not None and reply else {}
    released = (
        GrantRow.update(
            state=retry.state,
            due_time=micros(retry.due_time),
            sends=GrantRow.sends - (0 if retry.spent or claimed.found is GrantState.SENT else 1),
            attempts=GrantRow.attempts + 1,
            lease_owner=None,
            lease_expire_time=None,
            last_error=error,
            **unread_reply,
        )
        .where(still_ours(claimed))
        .execute(tx.database)
    )
    if released:
        for account in accounts.of_grant(tx, claimed.id):
            tx.event(
                EventKind.REFRESH_FAILED,
                account_id=account.id,
                profile_id=account.profile_id,
                platform=account.platform,
                caller=claimed.caller,
                error=error,
                state=retry.state,
                attempt=claimed.attempts + 1,
                due_time=retry.due_time.isoformat(),
            )
    return bool(released)


def use_candidate(tx: Transaction, claimed: ClaimedGrant) -> bool:
    row = get(tx, claimed.id)
    if row is None or row.candidate is None or row.generation != claimed.generation:
        return False
    try:
        packed = tx.vault.open(
            bytes(row.candidate), grant_context("candidate", row.id, row.profile_id, row.platform, row.generation)
        )
    except SealBroken:
        return False
    generation = row.generation + 1
    token_set = unpack(packed)
    return bool(
        GrantRow.update(
            state=GrantState.READY,
            generation=generation,
            token_set=tx.vault.seal(
                packed, grant_context("token_set", row.id, row.profile_id, row.platform, generation)
            ),
            candidate=None,
            refreshable=token_set.refresh_token is not None,
            access_token_expire_time=optional_micros(token_set.expire_time),
            due_time=tx.now_us,
            lease_owner=None,
            lease_expire_time=None,
            sends=0,
        )
        .where(still_ours(claimed))
        .execute(tx.database)
    )


def expire_grant(tx: Transaction, claimed: ClaimedGrant, reason: StatusReason, error: str) -> bool:
    row = get(tx, claimed.id)
    if row is not None and row.state == GrantState.REVOKING:
        revocations.drop_stub(tx, row)
        return False
    if not GrantRow.update(**DEAD, last_error=error).where(still_ours(claimed)).execute(tx.database):
        return False
    accounts.expire(tx, claimed.id, reason, error, claimed.caller)
    return True


DEAD: dict[str, Any] = {
    "state": GrantState.DEAD,
    "due_time": None,
    "identity_due_time": None,
    "lease_owner": None,
    "lease_expire_time": None,
}


def expire_ended(tx: Transaction, platform: str, limit: int) -> int:
    ended = lock_due(tx, platform, refreshable=False, limit=limit)
    for row in ended:
        GrantRow.update(**DEAD).where(GrantRow.id == row.id).execute(tx.database)
        accounts.expire(tx, row.id, StatusReason.NOT_REFRESHABLE, "")
    return len(ended)


# --- reading identities again


def any_identity_due(tx: Transaction, platform: str) -> bool:
    """A look that takes no lock."""
    statement = tx.statements.get(
        "identity_due",
        tx.database,
        lambda: GrantRow.select(GrantRow.id).where(identity_due(slot("platform"), slot("now"))).limit(1),
    )
    return statement.run(tx.database, platform=platform, now=tx.now_us).fetchone() is not None


def identity_due(platform: Any, now: Any) -> Any:
    return (
        (GrantRow.platform == platform)
        & (GrantRow.identity_due_time <= now)
        & (GrantRow.state == GrantState.READY)
        & (GrantRow.access_token_expire_time.is_null() | (GrantRow.access_token_expire_time > now))
    )


def claim_identity_due(tx: Transaction, platform: str, retry: timedelta, limit: int) -> list[IdentityRead]:
    due = []
    for row in tx.lock_free(GrantRow.select().where(identity_due(platform, tx.now_us)).limit(limit)):
        set_identity_due(tx, row.id, micros(tx.now + retry))
        try:
            due.append(IdentityRead(row.id, row.generation, open_grant(tx, row)))
        except SealBroken:
            log.error("a sealed token set does not open", extra={"grant_id": row.id})
    return due


def set_identity_due(tx: Transaction, grant_id: str, due_us: int) -> None:
    GrantRow.update(identity_due_time=due_us).where(GrantRow.id == grant_id).execute(tx.database)


def refresh_now(tx: Transaction, grant_id: str, generation: int) -> None:
    GrantRow.update(due_time=tx.now_us).where(
        GrantRow.id == grant_id,
        GrantRow.generation == generation,
        GrantRow.state == GrantState.READY,
        GrantRow.refreshable == True,  # noqa: E712 (SQL)
    ).execute(tx.database)
