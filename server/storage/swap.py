"""SQL of the one swap that stores refreshed token sets: a whole group of them in one statement.

The generation fences: a token set is stored only over the generation it was refreshed from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peewee import CTE, ValuesList

from server.accounts.grants import GrantState, Refreshed
from server.storage.schema import GrantRow
from server.storage.statement import blocks, slot
from server.storage.token_sets import grant_context, pack
from server.storage.transaction import Transaction, optional_micros

FRESH = ("grant_id", "spent", "token_set", "refreshable", "expire_time", "due_time")
"""What the statement is told of each refresh."""


def swap(tx: Transaction, group: Sequence[Refreshed]) -> list[bool]:
    """Puts each new token set in the place of the generation that was spent for it; says for each if that was there."""
    return [stored for block in blocks(group) for stored in swap_block(tx, block)]


def swap_block(tx: Transaction, group: Sequence[Refreshed]) -> list[bool]:
    sealed = [seal(tx, refreshed) for refreshed in group]
    values: dict[str, Any] = {"now": tx.now_us}
    for number, (refreshed, token_set) in enumerate(zip(group, sealed, strict=True)):
        fresh = (
            refreshed.grant_id,
            refreshed.generation,
            token_set,
            refreshed.token_set.refresh_token is not None,
            optional_micros(refreshed.token_set.expire_time),
            optional_micros(refreshed.due_time),
        )
        values.update(zip(names(number), fresh, strict=True))
    found = tx.run(("swap", len(group)), lambda: query(len(group)), **values).fetchall()
    # No two seals are alike, so one that comes back says whose token set was stored, also of two for the same grant.
    stored = {bytes(token_set) for (token_set,) in found}
    return [token_set in stored for token_set in sealed]


def seal(tx: Transaction, refreshed: Refreshed) -> bytes:
    generation = refreshed.generation + 1
    bound = grant_context("token_set", refreshed.grant_id, refreshed.profile_id, refreshed.platform, generation)
    return tx.vault.seal(pack(refreshed.token_set), bound)


def names(number: int) -> list[str]:
    return [f"{name}_{number}" for name in FRESH]


def query(count: int) -> Any:
    rows = []
    for number in range(count):
        *plain, expire_time, due_time = map(slot, names(number))
        # PostgreSQL takes a NULL without type for text.
        rows.append([*plain, expire_time.cast("BIGINT"), due_time.cast("BIGINT")])
    fresh = CTE("fresh", ValuesList(rows), columns=FRESH)
    return (
        GrantRow.update(
            state=GrantState.READY,
            generation=fresh.c.spent + 1,
            token_set=fresh.c.token_set,
            candidate=None,
            unread_reply=None,
            refreshable=fresh.c.refreshable,
            access_token_expire_time=fresh.c.expire_time,
            due_time=fresh.c.due_time,
            lease_owner=None,
            lease_expire_time=None,
            sends=0,
            attempts=0,
            last_error="",
            last_refresh_time=slot("now"),
        )
        .from_(fresh)
        .where(
            GrantRow.id == fresh.c.grant_id,
            GrantRow.generation == fresh.c.spent,
            GrantRow.state.not_in([GrantState.REVOKING, GrantState.DEAD]),
        )
        .returning(GrantRow.token_set)
        .with_cte(fresh)
    )
