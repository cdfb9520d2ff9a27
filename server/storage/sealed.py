"""Every sealed column: the one list of them, what each value is bound to, and how many values each key wraps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from peewee import Case, Database, fn

from server.storage import requests, revocations
from server.storage.schema import GrantRow, KeyCheckRow, RequestRow, RevocationRow, SecretRow
from server.storage.token_sets import grant_context
from server.storage.vault import Context, SealBroken, head_of, key_id_of

LONGEST_HEAD = 2 + 40
UNREADABLE = "(not a sealed value)"
PAGE = 2000


@dataclass(frozen=True)
class SealedColumn:
    """A column of sealed values, and the context of the value in a row."""

    field: Any
    bound_by: tuple[Any, ...]
    """The columns that the context is made of."""
    context: Callable[[Any], Context]

    @property
    def name(self) -> str:
        return f"{self.model._meta.table_name}.{self.field.name}"

    @property
    def model(self) -> Any:
        return self.field.model

    @property
    def key(self) -> Any:
        return self.model._meta.primary_key


def of_grant(field: Any) -> SealedColumn:
    return SealedColumn(
        field,
        (GrantRow.id, GrantRow.profile_id, GrantRow.platform, GrantRow.generation),
        lambda row: grant_context(field.name, row.id, row.profile_id, row.platform, row.generation),
    )


def of_request(field: Any) -> SealedColumn:
    return SealedColumn(
        field,
        (RequestRow.id, RequestRow.profile_id, RequestRow.platform),
        lambda row: requests.context(field.name, row.id, row.profile_id, row.platform),
    )


SEALED = (
    of_grant(GrantRow.token_set),
    of_grant(GrantRow.candidate),
    of_grant(GrantRow.unread_reply),
    of_request(RequestRow.code_verifier),
    of_request(RequestRow.code),
    of_request(RequestRow.exchanged),
    SealedColumn(
        RevocationRow.tokens,
        (RevocationRow.id, RevocationRow.profile_id, RevocationRow.platform),
        lambda row: revocations.context(row.id, row.profile_id, row.platform),
    ),
    SealedColumn(SecretRow.sealed, (SecretRow.name,), lambda row: ("secrets", "sealed", row.name)),
)
NOT_SEALED = (RequestRow.state_hash, RequestRow.completion_code_hash, KeyCheckRow.value)
"""Columns of bytes that hold no secret: hashes, and what proves which key it is."""


def page(database: Database, column: SealedColumn, after: str, size: int, key_id: str) -> list[Any]:
    """The next rows with a value; `.old` is the value where another key than `key_id` wraps it, else None."""
    head = head_of(key_id)
    old = Case(None, [(fn.SUBSTR(column.field, 1, len(head)) != head, column.field)], None)
    query = column.model.select(*column.bound_by, old.alias("old")).where(
        column.key > after, column.field.is_null(False)
    )
    return list(query.order_by(column.key).limit(size).execute(database))


def count_by_key(database: Database) -> dict[str, Counter[str]]:
    """How many values each key wraps, by column. It reads every row, a page at a time."""
    return {column.name: Counter(key_ids(database, column)) for column in SEALED}


def key_ids(database: Database, column: SealedColumn) -> Iterator[str]:
    head = fn.SUBSTR(column.field, 1, LONGEST_HEAD)
    after = ""
    while True:
        query = column.model.select(column.key, head).where(column.key > after, column.field.is_null(False))
        rows = list(query.order_by(column.key).limit(PAGE).tuples().execute(database))
        yield from (key_id_in(bytes(found)) for _, found in rows if found)
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


def key_id_in(head: bytes) -> str:
    """The id of the key, from the beginning of a value."""
    try:
        return key_id_of(head + bytes(LONGEST_HEAD * 4))
    except SealBroken:
        return UNREADABLE
