"""SQL of reading identities again: whose handle, name and avatar are due, and the lease that spaces the tries."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from server.accounts.grants import GrantState, IdentityRead
from server.storage.schema import GrantRow
from server.storage.statement import slot
from server.storage.token_sets import open_grant
from server.storage.transaction import Transaction, micros
from server.storage.vault import SealBroken

log = logging.getLogger(__name__)


def any_identity_due(tx: Transaction, platform: str) -> bool:
    """A look that takes no lock."""

    def query() -> Any:
        return GrantRow.select(GrantRow.id).where(identity_due(slot("platform"), slot("now"))).limit(1)

    return tx.run("identity_due", query, platform=platform, now=tx.now_us).fetchone() is not None


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
            due.append(IdentityRead(row.id, row.generation, open_grant(tx.vault, row)))
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
