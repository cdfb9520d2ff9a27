"""SQL of unread replies: answers to refreshes that nobody could read, sealed with their grant until somebody can."""

from __future__ import annotations

import json
import logging
from typing import Any

from server.accounts.grants import GrantState, UnreadReplies
from server.accounts.model import Secret
from server.storage.schema import GrantRow
from server.storage.token_sets import grant_context, open_grant
from server.storage.transaction import Transaction
from server.storage.vault import SealBroken

log = logging.getLogger(__name__)

LONGEST_REPLY = 65536
MOST_REPLIES = 2
"""A refresh token is sent twice at most."""


def keep(tx: Transaction, row: Any, reply: bytes) -> None:
    """Seals one more reply with its grant: the first may hold what the second does not."""
    try:
        known = opened(tx, row) if row.unread_reply is not None else []
    except SealBroken:
        known = []
    text = reply[:LONGEST_REPLY].decode("utf-8", "replace")
    if text in known:
        return  # the journal brings what the database had taken after all
    replies = [*known, text][-MOST_REPLIES:]
    sealed = seal(tx, row, replies, row.generation)
    GrantRow.update(unread_reply=sealed).where(GrantRow.id == row.id).execute(tx.database)


def carried(tx: Transaction, row: Any, generation: int) -> bytes | None:
    """Its replies, sealed for the generation that replaces a row's own: they open nowhere else. None if it has none."""
    if row.unread_reply is None:
        return None
    try:
        return seal(tx, row, opened(tx, row), generation)
    except SealBroken:
        return bytes(row.unread_reply)


def find(tx: Transaction) -> tuple[UnreadReplies, ...]:
    found = []
    query = GrantRow.select().where(GrantRow.unread_reply.is_null(False)).order_by(GrantRow.id)
    for row in query.execute(tx.database):
        try:
            replies = tuple(map(Secret, opened(tx, row)))
            token_set = open_grant(tx.vault, row)
        except SealBroken:
            log.error("an unread reply or its token set does not open", extra={"grant_id": row.id})
            continue
        state = GrantState(row.state)
        found.append(UnreadReplies(row.id, row.profile_id, row.platform, state, row.generation, token_set, replies))
    return tuple(found)


def forget(tx: Transaction, grant_id: str) -> None:
    """They were read, and came too late for the grant."""
    GrantRow.update(unread_reply=None).where(GrantRow.id == grant_id).execute(tx.database)


def opened(tx: Transaction, row: Any) -> list[str]:
    """Raises SealBroken."""
    replies: list[str] = json.loads(tx.vault.open(bytes(row.unread_reply), bound(row, row.generation)))
    return replies


def seal(tx: Transaction, row: Any, replies: list[str], generation: int) -> bytes:
    return tx.vault.seal(json.dumps(replies).encode(), bound(row, generation))


def bound(row: Any, generation: int) -> tuple[str | int, ...]:
    return grant_context("unread_reply", row.id, row.profile_id, row.platform, generation)
