"""SQL of erasing: whatever names a profile goes, a transaction at a time; what stays is listed in `schema`."""

from __future__ import annotations

import hmac
import logging
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from peewee import SQL, fn

from server.accounts.errors import Reason
from server.accounts.events import EventKind
from server.accounts.flow import OUTCOME_KEPT, Failure, Phase
from server.accounts.grants import GrantState
from server.accounts.model import ErasedAccount, Erasure, PlatformRevocation, Receipt, Status
from server.storage import requests, revocations
from server.storage.accounts import REVOCATIONS
from server.storage.schema import (
    AccountRow,
    ErasedAccountRow,
    ErasureRow,
    EventRow,
    GrantRow,
    LinkRow,
    RequestRow,
    RevocationRow,
    SecretRow,
    in_state,
)
from server.storage.transaction import Transaction, instant, micros, optional_instant
from server.storage.vault import SealBroken

log = logging.getLogger(__name__)

REDACTED_AT_ONCE = 200
TELLS_OF_PROFILE = SQL("kind = 'account_erased' AND profile_id <> ''")
"""As the index has it."""
SETTLES_AFTER = timedelta(minutes=1)
"""By then, whatever was under way when the erasure began has been committed."""


def digest(tx: Transaction, profile_id: str) -> str:
    """Finds the erasure of a profile again without keeping its id, which may be guessable; hence the key."""
    row = SecretRow.select().where(SecretRow.name == "erasure_key").get(tx.database)
    key = tx.vault.open(bytes(row.sealed), ("secrets", "sealed", "erasure_key"))
    return hmac.new(key, profile_id.encode(), sha256).hexdigest()


def begin(tx: Transaction, profile_id: str, caller: str) -> Erasure:
    """Notes what is to be done, and ends the connects that are under way."""
    found = digest(tx, profile_id)
    row = tx.lock(ErasureRow.select().where(ErasureRow.profile_digest == found))
    said = {"profile_id": profile_id, "caller": caller, "create_time": tx.now_us, "erase_time": None}
    if row is None:
        erasure_id = tx.new_id()
        ErasureRow.insert(id=erasure_id, profile_digest=found, **said).execute(tx.database)
    else:
        erasure_id = row.id
        ErasureRow.update(**said).where(ErasureRow.id == row.id).execute(tx.database)
    tx.event(EventKind.ERASURE_REQUESTED, caller=caller, erasure_id=erasure_id)
    erasure = Erasure(erasure_id, profile_id, caller, tx.now)
    end_requests(tx, erasure)
    tx.forget_profile()
    return erasure


def end_requests(tx: Transaction, erasure: Erasure) -> None:
    """Connects that were begun cannot be completed any more.

    One whose code is being exchanged is failed, and stays until the sweep: it catches the tokens that may still come.
    """
    mine = (RequestRow.profile_id == erasure.profile_id) & (RequestRow.create_time <= micros(erasure.create_time))
    rows = tx.lock_all(RequestRow.select().where(mine))
    kept = [row.id for row in rows if catches_tokens(tx, row)]
    failure = Failure(Reason.CONNECT_FAILED, "the profile was deleted; begin again")
    for request_id in kept:
        requests.fail(tx, request_id, failure, [Phase.EXCHANGING])
    RequestRow.delete().where(RequestRow.id.in_([row.id for row in rows if row.id not in kept])).execute(tx.database)


def catches_tokens(tx: Transaction, request: Any) -> bool:
    ended_lately = request.phase == Phase.FAILED and request.phase_time > micros(tx.now - OUTCOME_KEPT)
    return bool(request.phase == Phase.EXCHANGING or ended_lately)


def erase_account(tx: Transaction, account_id: str, erasure: Erasure, supported: bool, ends_user_grant: bool) -> None:
    """Revokes it as Revoke does, and erases it; its tokens stay in the outbox until the platform has confirmed."""
    if tx.locked(AccountRow, account_id) is None:
        return
    revocations.revoke_account(tx, account_id, erasure.caller, supported, ends_user_grant)
    account = AccountRow.select().where(AccountRow.id == account_id).get(tx.database)
    ErasedAccountRow.insert(
        account_id=account_id,
        erasure_id=erasure.id,
        platform=account.platform,
        platform_revocation=account.platform_revocation,
        erase_time=tx.now_us,
        update_time=tx.now_us,
    ).execute(tx.database)
    erase_row(tx, account, erasure.caller)
    tx.forget_profile()


def erase_row(tx: Transaction, account: Any, caller: str) -> None:
    AccountRow.delete().where(AccountRow.id == account.id).execute(tx.database)
    tx.event_of(
        account,
        EventKind.ACCOUNT_ERASED,
        caller=caller,
        platform_revocation=REVOCATIONS[account.platform_revocation].name,
    )


def disown(tx: Transaction, row: Any) -> None:
    """Seals an entry of the outbox anew, bound to no profile. One that does not open waits for its key as it is."""
    try:
        opened = tx.vault.open(bytes(row.tokens), revocations.context(row.id, row.profile_id, row.platform))
    except SealBroken:
        log.critical("tokens of an erased profile do not open", extra={"revocation_id": row.id})
        return
    tokens = tx.vault.seal(opened, revocations.context(row.id, "", row.platform))
    RevocationRow.update(profile_id="", tokens=tokens).where(RevocationRow.id == row.id).execute(tx.database)


def erase_traces(tx: Transaction, erasure: Erasure) -> bool:
    """What names the profile besides its accounts; says whether there may be more."""
    end_requests(tx, erasure)
    mine = (GrantRow.profile_id == erasure.profile_id) & in_state(GrantState.REVOKING)
    GrantRow.update(profile_id="").where(mine).execute(tx.database)
    for row in tx.lock_all(RevocationRow.select().where(RevocationRow.profile_id == erasure.profile_id)):
        disown(tx, row)
    tx.forget_profile()
    if redact(tx, events_of(erasure), erasure.caller):
        return True
    ErasureRow.update(erase_time=tx.now_us).where(ErasureRow.id == erasure.id, ErasureRow.erase_time.is_null()).execute(
        tx.database
    )
    return False


def events_of(erasure: Erasure) -> Any:
    """Those from before it, and those that the erased accounts still caused until they were."""
    erased = ErasedAccountRow.select(ErasedAccountRow.account_id).where(ErasedAccountRow.erasure_id == erasure.id)
    before = EventRow.time <= micros(erasure.create_time)
    return (EventRow.profile_id == erasure.profile_id) & (before | EventRow.account_id.in_(erased))


def redact(tx: Transaction, which: Any, caller: str) -> bool:
    """Erases the personal part of some events, with the salts of its hashes, and records which; False if of none."""
    some = EventRow.select(EventRow.id).where(which).order_by(EventRow.id).limit(REDACTED_AT_ONCE)
    ids = [row.id for row in tx.lock_all(some)]
    if not ids:
        return False
    EventRow.update(profile_id="", personal=None).where(EventRow.id.in_(ids)).execute(tx.database)
    LinkRow.update(salt="").where(LinkRow.event_id.in_(ids)).execute(tx.database)
    tx.event(EventKind.PERSONAL_DATA_ERASED, caller=caller, events=ids)
    return True


def open_erasures(tx: Transaction, limit: int) -> list[Erasure]:
    """Those that were interrupted, and those that may be settled by now."""
    waiting = ErasureRow.erase_time.is_null() | (ErasureRow.create_time <= micros(tx.now - SETTLES_AFTER))
    query = ErasureRow.select().where(ErasureRow.profile_id.is_null(False), waiting).order_by(ErasureRow.create_time)
    return [
        Erasure(row.id, row.profile_id, row.caller, instant(row.create_time))
        for row in query.limit(limit).execute(tx.database)
    ]


def settle(tx: Transaction, erasure: Erasure) -> bool:
    """Forgets the profile's id once nothing that was there is left; says whether it did."""
    if tx.now < erasure.create_time + SETTLES_AFTER:
        return False
    began = micros(erasure.create_time)
    accounts = (AccountRow.profile_id == erasure.profile_id) & (AccountRow.create_time <= began)
    connects = (RequestRow.profile_id == erasure.profile_id) & (RequestRow.create_time <= began)
    for model, left in ((AccountRow, accounts), (RequestRow, connects), (EventRow, events_of(erasure))):
        if model.select(model.id).where(left).limit(1).first(tx.database) is not None:
            return False
    return bool(
        ErasureRow.update(profile_id=None)
        .where(ErasureRow.id == erasure.id, ErasureRow.create_time == began)
        .execute(tx.database)
    )


def receipt(tx: Transaction, erasure_id: str) -> Receipt:
    row = ErasureRow.select().where(ErasureRow.id == erasure_id).get(tx.database)
    query = ErasedAccountRow.select().where(ErasedAccountRow.erasure_id == erasure_id)
    accounts = tuple(
        ErasedAccount(
            each.account_id,
            each.platform,
            REVOCATIONS[each.platform_revocation],
            instant(each.erase_time),
            instant(each.update_time),
        )
        for each in query.order_by(ErasedAccountRow.account_id).execute(tx.database)
    )
    return Receipt(erasure_id, optional_instant(row.erase_time), accounts)


# --- what has been kept for long enough


def erase_revoked(tx: Transaction, before: datetime, limit: int) -> int:
    """Erases accounts that were revoked long ago, and the personal part of their events; how many.

    That they were erased names their profile until the next time, so that its watchers can be told.
    """
    told = TELLS_OF_PROFILE & (EventRow.time <= micros(tx.now - SETTLES_AFTER))
    while redact(tx, told, ""):
        pass
    # Of several revocations of an account one may be given up, and another go on.
    going_on = RevocationRow.select(RevocationRow.id).where(RevocationRow.account_id == AccountRow.id)
    old = (
        (AccountRow.status == Status.REVOKED.value)
        & (AccountRow.status_time <= micros(before))
        & (AccountRow.platform_revocation != PlatformRevocation.PENDING.value)
        & ~fn.EXISTS(going_on)
    )
    rows = tx.lock_free(AccountRow.select().where(old).order_by(AccountRow.id).limit(limit))
    for account in rows:
        while redact(tx, personal_of(account.id), ""):
            pass
        erase_row(tx, account, "")
    return len(rows)


def personal_of(account_id: str) -> Any:
    return (EventRow.account_id == account_id) & ((EventRow.profile_id != "") | EventRow.personal.is_null(False))


def forget_receipts(tx: Transaction, before: datetime) -> None:
    """Receipts last as long as the audit."""
    old = (
        ErasureRow.select(ErasureRow.id)
        .where(ErasureRow.profile_id.is_null(), ErasureRow.create_time <= micros(before))
        .limit(100)
    )
    ids = [row.id for row in old.execute(tx.database)]
    pending = ErasedAccountRow.platform_revocation == PlatformRevocation.PENDING.value
    for erasure_id in ids:
        mine = ErasedAccountRow.erasure_id == erasure_id
        if ErasedAccountRow.select().where(mine, pending).first(tx.database) is None:
            ErasedAccountRow.delete().where(mine).execute(tx.database)
            ErasureRow.delete().where(ErasureRow.id == erasure_id).execute(tx.database)
