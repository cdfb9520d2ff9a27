"""SQL of acting: the uses of accounts, as events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.accounts.audit import Origin
from server.accounts.calls import Use, UseFailed
from server.accounts.errors import AccountError, AccountNotFound, AccountRevoked
from server.accounts.events import SENT, EventKind
from server.accounts.model import Status
from server.storage.schema import AccountRow
from server.storage.statement import slot
from server.storage.transaction import Transaction


def record(tx: Transaction, group: Sequence[Use | UseFailed]) -> list[AccountError | None]:
    """Records each, or says why it is not: an account that was revoked or erased meanwhile is not used any more."""
    return [record_one(tx, each) for each in group]


def record_one(tx: Transaction, use: Use | UseFailed) -> AccountError | None:
    if isinstance(use, UseFailed):
        record_failed(tx, use)
        return None
    status = status_of(tx, use.account.id)
    if status is None:
        return AccountNotFound(use.account.id)
    if status is Status.REVOKED:
        return AccountRevoked(use.account.id)
    note(tx, EventKind.ACCOUNT_USED, use, SENT, use.account.profile_id, event_id=use.id)
    return None


def record_failed(tx: Transaction, failed: UseFailed) -> None:
    """Of an account that was erased meanwhile nothing personal is recorded."""
    use = failed.use
    profile_id = "" if status_of(tx, use.account.id) is None else use.account.profile_id
    note(tx, EventKind.ACCOUNT_USE_FAILED, use, failed.result, profile_id, use_id=use.id, status=failed.status)


def note(tx: Transaction, kind: EventKind, use: Use, result: str, profile_id: str, **more: Any) -> None:
    tx.event(
        kind,
        account_id=use.account.id,
        profile_id=profile_id,
        platform=use.account.platform,
        caller=use.caller,
        result=result,
        origin=Origin(use.peer, use.request_id),
        method=use.method,
        route=use.route,
        **more,
    )


def status_of(tx: Transaction, account_id: str) -> Status | None:
    """None if there is no such account any more."""
    row = tx.run("account_status", select_status, account_id=account_id).fetchone()
    return None if row is None else Status(row[0])


def select_status() -> Any:
    return AccountRow.select(AccountRow.status).where(AccountRow.id == slot("account_id"))
