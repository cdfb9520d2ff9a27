"""SQL of revoking: the account's end, and the outbox of tokens that the platform has yet to confirm as revoked."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from peewee import Case, fn

from server.accounts.errors import AccountNotFound
from server.accounts.events import EventKind
from server.accounts.grants import ClaimedRevocation, GrantState, TokenSet
from server.accounts.model import PlatformRevocation, Secret, Status, StatusReason
from server.storage.schema import AccountRow, ErasedAccountRow, GrantRow, RevocationRow, in_state
from server.storage.statement import slot
from server.storage.token_sets import open_candidate, open_grant
from server.storage.transaction import Transaction, micros
from server.storage.vault import BROKEN_WAIT, SealBroken

log = logging.getLogger(__name__)

GIVEN_UP_AFTER, GIVEN_UP_TRIES = timedelta(days=30), 100
"""A platform that has not confirmed for so long, asked so often, is asked no more: tokens are not kept for ever."""

NOTHING_LEFT = (StatusReason.REFRESH_REJECTED.value, StatusReason.NOT_REFRESHABLE.value)
"""Expired for a reason after which the platform holds nothing live. A lost outcome may have left a live pair there."""


def context(row_id: str, profile_id: str, platform: str) -> tuple[str | int, ...]:
    return ("revocations", "tokens", row_id, profile_id, platform, 0)


def add(
    tx: Transaction,
    token_set: TokenSet,
    *,
    account_id: str | None,
    grant_id: str,
    profile_id: str,
    platform: str,
    due_us: int | None,
) -> None:
    """Puts a pair into the outbox; without a due time it is held back until its account is revoked."""
    row_id = tx.new_id()
    tokens = [token.reveal() for token in (token_set.refresh_token, token_set.access_token) if token]
    RevocationRow.insert(
        id=row_id,
        account_id=account_id,
        grant_id=grant_id,
        profile_id=profile_id,
        platform=platform,
        tokens=tx.vault.seal(json.dumps(tokens).encode(), context(row_id, profile_id, platform)),
        due_time=due_us,
        create_time=tx.now_us,
    ).execute(tx.database)


def retire_grant(tx: Transaction, grant: Any, account_id: str, due_us: int | None) -> None:
    """The grant's pair moves to the outbox. One that is being refreshed stays as a stub that catches the new pair."""
    for opened in (open_grant, open_candidate):
        try:
            token_set = opened(tx.vault, grant)
        except SealBroken:
            log.critical("a token set that does not open cannot be revoked", extra={"grant_id": grant.id})
            continue
        if token_set is not None:
            add(
                tx,
                token_set,
                account_id=account_id,
                grant_id=grant.id,
                profile_id=grant.profile_id,
                platform=grant.platform,
                due_us=due_us,
            )
    if grant.state == GrantState.SENT:
        GrantRow.update(
            state=GrantState.REVOKING,
            account_id=account_id,
            token_set=b"",
            candidate=None,
            unread_reply=None,
            access_token_expire_time=None,
            due_time=None,
            identity_due_time=None,
        ).where(GrantRow.id == grant.id).execute(tx.database)
    else:
        GrantRow.delete().where(GrantRow.id == grant.id).execute(tx.database)


def add_for_retired(tx: Transaction, grant: Any, token_set: TokenSet) -> None:
    """A refresh that was under way when its grant was retired has brought a new pair: it goes the same way."""
    account = tx.locked(AccountRow, grant.account_id)
    held = account is not None and account.status != Status.REVOKED.value
    add(
        tx,
        token_set,
        account_id=grant.account_id,
        grant_id=grant.id,
        profile_id=grant.profile_id,
        platform=grant.platform,
        due_us=None if held else tx.now_us,
    )
    if account is not None and not held:
        AccountRow.update(platform_revocation=PlatformRevocation.PENDING.value).where(
            AccountRow.id == account.id
        ).execute(tx.database)


def revoke_account(tx: Transaction, account_id: str, caller: str, supported: bool, ends_user_grant: bool) -> None:
    account = tx.locked(AccountRow, account_id)
    if account is None:
        raise AccountNotFound(account_id)
    if account.status == Status.REVOKED.value:
        return
    grant = tx.locked(GrantRow, account.grant_id)
    outcome = platform_outcome(tx, account, grant, supported, ends_user_grant)
    if outcome is PlatformRevocation.PENDING and grant is not None:
        retire_grant(tx, grant, account.id, tx.now_us)
    elif grant is not None and not shares_grant(tx, account):
        GrantRow.delete().where(GrantRow.id == grant.id).execute(tx.database)
    of_account = RevocationRow.account_id == account.id
    if outcome is PlatformRevocation.NOT_SUPPORTED or outcome is PlatformRevocation.KEPT_FOR_SIBLING:
        RevocationRow.delete().where(of_account).execute(tx.database)
    elif RevocationRow.update(due_time=tx.now_us).where(of_account).execute(tx.database) or has_stub(tx, account.id):
        outcome = PlatformRevocation.PENDING
    else:
        outcome = PlatformRevocation.NOTHING_TO_REVOKE
    AccountRow.update(
        grant_id="",
        status=Status.REVOKED.value,
        status_reason=StatusReason.REVOKED_BY_CALLER.value,
        status_time=tx.now_us,
        update_time=tx.now_us,
        platform_revocation=outcome.value,
    ).where(AccountRow.id == account.id).execute(tx.database)
    tx.event_of(account, EventKind.REVOKED, caller=caller, platform_revocation=outcome.name)


def platform_outcome(
    tx: Transaction, account: Any, grant: Any, supported: bool, ends_user_grant: bool
) -> PlatformRevocation:
    if shares_grant(tx, account) or (ends_user_grant and has_sibling(tx, account)):
        return PlatformRevocation.KEPT_FOR_SIBLING
    if grant is None or (grant.state == GrantState.DEAD and account.status_reason in NOTHING_LEFT):
        return PlatformRevocation.NOTHING_TO_REVOKE
    return PlatformRevocation.PENDING if supported else PlatformRevocation.NOT_SUPPORTED


def shares_grant(tx: Transaction, account: Any) -> bool:
    def query() -> Any:
        others = (AccountRow.grant_id == slot("grant_id")) & (AccountRow.id != slot("id"))
        return AccountRow.select(AccountRow.id).where(others).limit(1)

    if not account.grant_id:
        return False
    return tx.run("shares_grant", query, grant_id=account.grant_id, id=account.id).fetchone() is not None


def has_sibling(tx: Transaction, account: Any) -> bool:
    """Whether the same platform user is connected to another profile."""
    others = (
        (AccountRow.platform == account.platform)
        & (AccountRow.platform_user_id == account.platform_user_id)
        & (AccountRow.id != account.id)
        & (AccountRow.status == Status.ACTIVE.value)
    )
    return AccountRow.select(AccountRow.id).where(others).first(tx.database) is not None


def any_due(tx: Transaction, platform: str) -> bool:
    statement = tx.statements.get(
        "revocation_due",
        tx.database,
        lambda: (
            RevocationRow.select(RevocationRow.id)
            .where(RevocationRow.platform == slot("platform"), RevocationRow.due_time <= slot("now"))
            .limit(1)
        ),
    )
    return statement.run(tx.database, platform=platform, now=tx.now_us).fetchone() is not None


def claim(
    tx: Transaction, platform: str, lease: timedelta, limit: int, account_id: str | None
) -> list[ClaimedRevocation]:
    which = RevocationRow.due_time <= tx.now_us
    if account_id is not None:
        which &= RevocationRow.account_id == account_id
    rows = tx.lock_free(
        RevocationRow.select()
        .where(RevocationRow.platform == platform, which)
        .order_by(RevocationRow.due_time)
        .limit(limit)
    )
    if rows:
        RevocationRow.update(due_time=micros(tx.now + lease)).where(
            RevocationRow.id.in_([row.id for row in rows])
        ).execute(tx.database)
    claimed = []
    for row in rows:
        try:
            claimed.append(to_claimed(tx, row))
        except SealBroken:
            log.critical("tokens that do not open cannot be revoked", extra={"revocation_id": row.id})
            retry(tx, row.id, micros(tx.now + BROKEN_WAIT), "the sealed tokens do not open")
    return claimed


def to_claimed(tx: Transaction, row: Any) -> ClaimedRevocation:
    """Raises SealBroken."""
    opened = tx.vault.open(bytes(row.tokens), context(row.id, row.profile_id, row.platform))
    return ClaimedRevocation(row.id, row.platform, tuple(map(Secret, json.loads(opened))), row.attempts)


def finish(tx: Transaction, revocation_id: str) -> None:
    row = tx.locked(RevocationRow, revocation_id)
    if row is None:
        return
    RevocationRow.delete().where(RevocationRow.id == row.id).execute(tx.database)
    if row.account_id is not None:
        confirm_if_done(tx, row.account_id)


def hold(tx: Transaction, account_ids: Sequence[str]) -> None:
    """The outbox of accounts that are connected again waits until they are revoked again, as a superseded pair does."""
    mine = RevocationRow.account_id.in_(list(account_ids))
    RevocationRow.update(due_time=None).where(mine).execute(tx.database)


def has_stub(tx: Transaction, account_id: str) -> bool:
    """Whether something waits for the new pair of a refresh that was under way when its grant was retired."""

    def query() -> Any:
        stub = (GrantRow.account_id == slot("account_id")) & in_state(GrantState.REVOKING)
        return GrantRow.select(GrantRow.id).where(stub).limit(1)

    return tx.run("has_stub", query, account_id=account_id).fetchone() is not None


def drop_stub(tx: Transaction, grant: Any) -> None:
    """The refresh of a retired grant has ended; nothing more is to come from it."""
    GrantRow.delete().where(GrantRow.id == grant.id).execute(tx.database)
    confirm_if_done(tx, grant.account_id)


def drop_stale_stubs(tx: Transaction) -> None:
    """Stubs of refreshes whose process died: their lease has run out.

    While its account is in use a stub stays: a pair that comes ever so late must be held back like the older ones.
    """
    its_account = AccountRow.select().where(AccountRow.id == GrantRow.account_id)
    in_use = fn.EXISTS(its_account.where(AccountRow.status != Status.REVOKED.value))
    stale = in_state(GrantState.REVOKING) & (GrantRow.lease_expire_time <= tx.now_us)
    for grant in list(GrantRow.select().where(stale & ~in_use).execute(tx.database)):
        drop_stub(tx, grant)


def confirm_if_done(tx: Transaction, account_id: str) -> None:
    """A revoked account says CONFIRMED once none of its tokens is left here, nor still to come from a refresh."""
    waiting = RevocationRow.select(RevocationRow.id).where(RevocationRow.account_id == account_id).first(tx.database)
    coming = has_stub(tx, account_id)
    account = tx.locked(AccountRow, account_id)
    if account is None and not (waiting or coming):
        confirm_erased(tx, account_id)
    if waiting or coming or account is None or account.platform_revocation != PlatformRevocation.PENDING.value:
        return
    AccountRow.update(platform_revocation=PlatformRevocation.CONFIRMED.value, update_time=tx.now_us).where(
        AccountRow.id == account_id
    ).execute(tx.database)
    tx.event_of(account, EventKind.PLATFORM_REVOCATION_CONFIRMED)


def confirm_erased(tx: Transaction, account_id: str) -> None:
    """The same for an account that is erased: its receipt says so."""
    row = tx.locked(ErasedAccountRow, account_id)
    if row is None or row.platform_revocation != PlatformRevocation.PENDING.value:
        return
    ErasedAccountRow.update(platform_revocation=PlatformRevocation.CONFIRMED.value, update_time=tx.now_us).where(
        ErasedAccountRow.account_id == account_id
    ).execute(tx.database)
    tx.event(EventKind.PLATFORM_REVOCATION_CONFIRMED, account_id=account_id, platform=row.platform)


def retry(tx: Transaction, revocation_id: str, due_us: int, error: str) -> bool:
    """Leaves it for later, or gives it up; says whether it did.

    One that is held back meanwhile, because its account was connected again, stays so.
    """
    row = tx.locked(RevocationRow, revocation_id)
    if row is None:
        return False
    in_vain = row.attempts + 1 >= GIVEN_UP_TRIES and waits_since(tx, row) <= micros(tx.now - GIVEN_UP_AFTER)
    if in_vain and row.due_time is not None:
        give_up(tx, row, error)
        return True
    still_due = Case(None, [(RevocationRow.due_time.is_null(), RevocationRow.due_time)], due_us)
    RevocationRow.update(due_time=still_due, attempts=RevocationRow.attempts + 1, last_error=error).where(
        RevocationRow.id == revocation_id
    ).execute(tx.database)
    return False


def waits_since(tx: Transaction, row: Any) -> int:
    """Since when the platform is asked for it: a superseded pair was held back until its account was revoked."""
    since: list[int] = [row.create_time]
    if row.account_id is not None:
        mine = AccountRow.select(AccountRow.status_time).where(AccountRow.id == row.account_id)
        erased = ErasedAccountRow.select(ErasedAccountRow.erase_time).where(
            ErasedAccountRow.account_id == row.account_id
        )
        since += [time for query in (mine, erased) for [time] in query.tuples().execute(tx.database)]
    return max(since)


def give_up(tx: Transaction, row: Any, error: str) -> None:
    """Erases the tokens. The account, or the receipt of an erased one, says so, whatever becomes of its others."""
    RevocationRow.delete().where(RevocationRow.id == row.id).execute(tx.database)
    said = {"platform_revocation": PlatformRevocation.GIVEN_UP.value, "update_time": tx.now_us}
    pending = PlatformRevocation.PENDING.value
    AccountRow.update(**said).where(AccountRow.id == row.account_id, AccountRow.platform_revocation == pending).execute(
        tx.database
    )
    ErasedAccountRow.update(**said).where(
        ErasedAccountRow.account_id == row.account_id, ErasedAccountRow.platform_revocation == pending
    ).execute(tx.database)
    # Where its profile was deleted they are not kept: they may name somebody.
    in_words: dict[str, Any] = {"error": error} if row.profile_id else {}
    tx.event(
        EventKind.PLATFORM_REVOCATION_GIVEN_UP,
        account_id=row.account_id,
        profile_id=row.profile_id,
        platform=row.platform,
        attempt=row.attempts + 1,
        **in_words,
    )
