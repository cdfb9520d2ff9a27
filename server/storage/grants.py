"""SQL of grants: reading one, and what becomes of it: committed, released, tried as its candidate, expired.

The generation fences: a token set is stored only over the generation it was refreshed from.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from peewee import Database

from server.accounts.events import EventKind
from server.accounts.grants import (
    AtHand,
    ClaimedGrant,
    Commit,
    GrantRecord,
    GrantState,
    NewGrant,
    Refreshed,
    Retry,
    TokenSet,
    UnreadReply,
)
from server.accounts.model import Account, StatusReason
from server.storage import accounts, revocations, unread
from server.storage.schema import AccountRow, GrantRow
from server.storage.statement import Statements, slot
from server.storage.swap import swap
from server.storage.token_sets import grant_context, open_candidate, open_grant, pack
from server.storage.transaction import Transaction, instant, micros, optional_instant, optional_micros
from server.storage.vault import SealBroken, Vault

log = logging.getLogger(__name__)


class Newest(NamedTuple):
    """What has to be read of a grant to open its token set."""

    id: str
    profile_id: str
    platform: str
    generation: int
    state: str | None
    """None where an account has no grant."""
    token_set: bytes


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
    return tx.locked(GrantRow, grant_id)


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


NEWEST = [getattr(GrantRow, name) for name in Newest._fields]


def newest(tx: Transaction, grant_id: str) -> TokenSet | None:
    """Raises SealBroken."""
    found = tx.run("newest", select_newest, grant_id=grant_id).fetchone()
    return None if found is None else opened(tx.vault, Newest(*found))


def select_newest() -> Any:
    return GrantRow.select(*NEWEST).where(GrantRow.id == slot("grant_id"))


def at_hand(database: Database, statements: Statements, vault: Vault, account_id: str) -> tuple[Account, AtHand] | None:
    """An account and its newest token set, in one look: it is read for each call on an account's behalf."""
    statement = statements.get("at_hand", database, select_at_hand)
    found = statement.run(database, account_id=account_id).fetchone()
    if found is None:
        return None
    width = len(NEWEST)
    return accounts.to_account(found[width:]), partial(opened, vault, Newest(*found[:width]))


def select_at_hand() -> Any:
    return accounts.select_accounts(*NEWEST).where(AccountRow.id == slot("account_id"))


def opened(vault: Vault, row: Newest) -> TokenSet | None:
    """None if it must not be used any more, or there is none. Raises SealBroken."""
    return None if row.state in (None, GrantState.REVOKING, GrantState.DEAD) else open_grant(vault, row)


# --- refreshing


def commit_refreshes(tx: Transaction, group: Sequence[Refreshed]) -> list[Commit]:
    """One compare-and-swap for all of them; only who loses it is looked at closer."""
    return [
        keep_scopes(tx, refreshed) if stored else not_stored(tx, refreshed)
        for refreshed, stored in zip(group, swap(tx, group), strict=True)
    ]


def keep_scopes(tx: Transaction, refreshed: Refreshed) -> Commit:
    if set(refreshed.token_set.scopes) != set(refreshed.scopes_before):
        accounts.update_scopes(tx, refreshed.grant_id, refreshed.token_set.scopes)
    return Commit.STORED


def not_stored(tx: Transaction, refreshed: Refreshed) -> Commit:
    """What becomes of a token set that was not swapped in."""
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
    if row.generation == refreshed.generation + 1 and open_grant(tx.vault, row) == refreshed.token_set:
        return Commit.STORED  # an earlier try whose outcome was not known
    if row.generation < refreshed.generation and row.state != GrantState.DEAD:
        return catch_up(tx, row, refreshed)
    if row.state == GrantState.DEAD:
        # Its account is EXPIRED, and only the connect flow brings it back: the late pair must not stay live.
        revoke_late(tx, refreshed)
        unread.forget(tx, row.id)
    elif row.generation == refreshed.generation + 1:
        # An older one comes late from a journal: it was stored, and is spent, or its rival was refreshed since.
        park_candidate(tx, row, refreshed.token_set)
    return Commit.LOST


def catch_up(tx: Transaction, row: Any, refreshed: Refreshed) -> Commit:
    """The database was restored and is behind what the journal holds, which is the newest that there is."""
    log.critical("a grant has gone back; its newer token set is stored", extra={"grant_id": row.id})
    GrantRow.update(generation=refreshed.generation).where(GrantRow.id == row.id).execute(tx.database)
    swap(tx, [refreshed])
    return keep_scopes(tx, refreshed)


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
    if row is not None and reply and row.generation == claimed.generation:
        # Whoever has the lease by now: it may hold the only live token.
        unread.keep(tx, row, reply)
    released = (
        GrantRow.update(
            state=retry.state,
            due_time=micros(retry.due_time),
            sends=GrantRow.sends - (0 if retry.spent or claimed.found is GrantState.SENT else 1),
            attempts=GrantRow.attempts + 1,
            lease_owner=None,
            lease_expire_time=None,
            last_error=error,
        )
        .where(still_ours(claimed))
        .execute(tx.database)
    )
    if released:
        for account in accounts.of_grant(tx, claimed.id):
            tx.event_of(
                account,
                EventKind.REFRESH_FAILED,
                caller=claimed.caller,
                result="failed",
                error=error,
                state=retry.state,
                attempt=claimed.attempts + 1,
                due_time=retry.due_time.isoformat(),
            )
    return bool(released)


def keep_unread(tx: Transaction, late: UnreadReply) -> None:
    row = get(tx, late.grant_id)
    if row is not None and row.state != GrantState.REVOKING and row.generation == late.generation:
        unread.keep(tx, row, late.reply)


def use_candidate(tx: Transaction, claimed: ClaimedGrant) -> bool:
    row = get(tx, claimed.id)
    if row is None or row.generation != claimed.generation:
        return False
    try:
        token_set = open_candidate(tx.vault, row)
    except SealBroken:
        return False
    if token_set is None:
        return False
    generation = row.generation + 1
    return bool(
        GrantRow.update(
            state=GrantState.READY,
            generation=generation,
            token_set=tx.vault.seal(
                pack(token_set), grant_context("token_set", row.id, row.profile_id, row.platform, generation)
            ),
            candidate=None,
            unread_reply=unread.carried(tx, row, generation),
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
