"""SQL of acting: the uses of accounts, as events."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Final

from server.accounts.audit import Origin
from server.accounts.calls import Use, UseFailed
from server.accounts.errors import AccountError, AccountNotFound, AccountRevoked
from server.accounts.events import SENT, EventKind
from server.accounts.model import Status
from server.storage.accounts import STATUSES
from server.storage.schema import AccountRow
from server.storage.statement import blocks, slot
from server.storage.transaction import Transaction

PATIENCE_SECONDS: Final = 0.04
"""How long a record waits for others at most where many come: a third more calls a second (measured)."""


def record(tx: Transaction, group: Sequence[Use | UseFailed]) -> list[AccountError | None]:
    """Records each, or says why it is not: an account that was revoked or erased meanwhile is not used any more."""
    statuses = statuses_of(tx, {use_of(each).account.id for each in group})
    return [record_one(tx, each, statuses.get(use_of(each).account.id)) for each in group]


def use_of(each: Use | UseFailed) -> Use:
    return each.use if isinstance(each, UseFailed) else each


def record_one(tx: Transaction, use: Use | UseFailed, status: Status | None) -> AccountError | None:
    """`status` is None where there is no such account any more."""
    if isinstance(use, UseFailed):
        # Of an account that was erased meanwhile nothing personal is recorded.
        profile_id = "" if status is None else use.use.account.profile_id
        note(tx, EventKind.ACCOUNT_USE_FAILED, use.use, use.result, profile_id, use_id=use.use.id, status=use.status)
        return None
    if status is None:
        return AccountNotFound(use.account.id)
    if status is Status.REVOKED:
        return AccountRevoked(use.account.id)
    note(tx, EventKind.ACCOUNT_USED, use, SENT, use.account.profile_id, event_id=use.id)
    return None


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


def statuses_of(tx: Transaction, account_ids: Collection[str]) -> dict[str, Status]:
    """Accounts that are gone are left out. The others stay as they are until what is recorded of them is committed."""
    found: dict[str, Status] = {}
    for block in blocks(sorted(account_ids)):
        names = [f"id{number}" for number in range(len(block))]
        values = dict(zip(names, block, strict=True))
        rows = tx.run(("account_statuses", len(block)), partial(select_statuses, tx, names), **values)
        found.update((account_id, STATUSES[status]) for account_id, status in rows.fetchall())
    return found


def select_statuses(tx: Transaction, names: Sequence[str]) -> Any:
    these = AccountRow.id.in_([slot(name) for name in names])
    return tx.hold(AccountRow.select(AccountRow.id, AccountRow.status).where(these).order_by(AccountRow.id))
