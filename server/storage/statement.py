"""Statements compiled once: Peewee builds a query in 230 us; running its stored SQL costs 10."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from peewee import Database, Model, Value

Row = TypeVar("Row")

LARGEST_BLOCK = 64


class Slot:
    """A place in a statement that is filled when it runs."""

    def __init__(self, name: str) -> None:
        self.name = name


def slot(name: str = "") -> Value:
    return Value(Slot(name), converter=False)


class Statement:
    """A Peewee query as SQL text for one database, with slots for its parameters."""

    def __init__(self, database: Database, query: Any) -> None:
        self.sql, self._parameters = database.get_sql_context().sql(query).query()

    def run(self, database: Database, **values: Any) -> Any:
        """A DB-API cursor."""
        return database.execute_sql(self.sql, self._filled(values))

    def rows(self, model: type[Model], database: Database, **values: Any) -> list[Any]:
        """What a statement that selects all of a model finds, as rows of that model."""
        return list(model.raw(self.sql, *self._filled(values)).execute(database))

    def run_in_order(self, database: Database, values: Sequence[Any]) -> Any:
        """With the values of its slots in their order, if it has no other parameters; a DB-API cursor."""
        return database.execute_sql(self.sql, values)

    def _filled(self, values: dict[str, Any]) -> list[Any]:
        return [values[p.name] if isinstance(p, Slot) else p for p in self._parameters]


class Statements:
    """The compiled statements of one database, made when they are first needed."""

    def __init__(self) -> None:
        self._made: dict[Any, Statement] = {}

    def get(self, key: Any, database: Database, build: Any) -> Statement:
        statement = self._made.get(key)
        if statement is None:
            statement = self._made[key] = Statement(database, build())
        return statement


def blocks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Rows in blocks whose sizes are powers of two: one statement is compiled per size, so there must be few."""
    start = 0
    while left := len(rows) - start:
        size = min(LARGEST_BLOCK, 1 << (left.bit_length() - 1))
        yield rows[start : start + size]
        start += size
