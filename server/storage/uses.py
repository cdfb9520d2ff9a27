"""SQL of acting: the uses of accounts, as events, and the token set that a use needs."""

from __future__ import annotations

from collections.abc import Sequence

from server.accounts.audit import Origin
from server.accounts.calls import Use, UseFailed
from server.accounts.events import SENT, EventKind
from server.storage.transaction import Transaction


def record(tx: Transaction, group: Sequence[Use | UseFailed]) -> list[None]:
    """They come from several callers, so each brings its origin."""
    for each in group:
        use = each.use if isinstance(each, UseFailed) else each
        account = use.account
        ended = {"use_id": use.id, "status": each.status} if isinstance(each, UseFailed) else {}
        tx.event(
            EventKind.ACCOUNT_USE_FAILED if isinstance(each, UseFailed) else EventKind.ACCOUNT_USED,
            account_id=account.id,
            profile_id=account.profile_id,
            platform=account.platform,
            caller=use.caller,
            result=each.result if isinstance(each, UseFailed) else SENT,
            origin=Origin(use.peer, use.request_id),
            event_id="" if isinstance(each, UseFailed) else use.id,
            method=use.method,
            route=use.route,
            **ended,
        )
    return [None] * len(group)
