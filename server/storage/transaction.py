"""One transaction of the store: its database, its time, its vault, and the events that it will leave behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from peewee import Database, Model

from server.accounts.audit import Origin
from server.accounts.events import DONE, KEPT_FACTS, EventKind
from server.storage.schema import CounterRow, EventRow
from server.storage.statement import Statements, blocks, slot
from server.storage.vault import Vault

RECORDED = [name for name in EventRow._meta.sorted_field_names if name != EventRow.chain_position.name]
"""What is known of an event when it is written; linking it to the others comes later."""

COMPACT = json.JSONEncoder(separators=(",", ":"))


@dataclass
class Served:
    """What a process knows of the database from before, to notice that it was restored meanwhile."""

    until_us: int = 0
    """Until when it was served, at least; in microseconds since 1970."""
    gone_back: str = ""
    """Why it must not be served any more by this process."""


class Transaction:
    """What SQL functions work with. `clock` gives the database's time."""

    def __init__(
        self,
        database: Database,
        statements: Statements,
        vault: Vault,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        *,
        locks_rows: bool,
        origin: Origin,
        served: Served,
    ) -> None:
        self._locks_rows = locks_rows
        self._origin = origin
        self.served = served
        self.database = database
        self.statements = statements
        self.vault = vault
        self._clock = clock
        self.new_id = new_id
        self._events: list[dict[str, Any]] = []

    @cached_property
    def now(self) -> datetime:
        """One instant for the whole transaction: when it first asks. Most reads never do."""
        return self._clock()

    @cached_property
    def now_us(self) -> int:
        return micros(self.now)

    def lock(self, query: Any) -> Any:
        """The first row of a query, or None; nobody else changes it until this transaction ends.

        SQLite has one writer, so a row that was read in a transaction is as good as locked.
        """
        return (query.for_update() if self._locks_rows else query).first(self.database)

    def locked(self, model: type[Model], key: str) -> Any:
        """The row with that primary key, or None; locked likewise. Most writes begin with this, so it is compiled."""

        def query() -> Any:
            row = model.select().where(model._meta.primary_key == slot("key"))
            return row.for_update() if self._locks_rows else row

        statement = self.statements.get(("locked", model), self.database, query)
        return next(iter(statement.rows(model, self.database, key=key)), None)

    def lock_all(self, query: Any) -> list[Any]:
        """The rows of a query, locked."""
        return list((query.for_update() if self._locks_rows else query).execute(self.database))

    def hold(self, query: Any) -> Any:
        """The query for rows that nobody changes until this transaction ends; others may hold them as well."""
        return query.for_update("FOR KEY SHARE") if self._locks_rows else query

    def skip_locked(self, query: Any) -> Any:
        """The query for the rows that nobody else has locked; it locks them."""
        return query.for_update(skip_locked=True) if self._locks_rows else query

    def lock_free(self, query: Any) -> list[Any]:
        """The rows of a query that nobody else has locked, locked."""
        return list(self.skip_locked(query).execute(self.database))

    def run(self, key: Any, build: Callable[[], Any], **values: Any) -> Any:
        """Runs the hot statement of that name, compiled when it is first needed; a DB-API cursor."""
        return self.statements.get(key, self.database, build).run(self.database, **values)

    def event(
        self,
        kind: EventKind,
        *,
        account_id: str | None = None,
        profile_id: str = "",
        platform: str = "",
        caller: str = "",
        result: str = DONE,
        origin: Origin | None = None,
        event_id: str = "",
        **facts: Any,
    ) -> None:
        """Records a fact; it is written when the transaction ends, which commits only if it could be.

        `origin` is that of the call under way, unless it is given; the id a new one.
        """
        origin = origin or self._origin
        kept = {name: fact for name, fact in facts.items() if name in KEPT_FACTS}
        personal = {name: fact for name, fact in facts.items() if name not in KEPT_FACTS}
        self._events.append(
            {
                "id": event_id or self.new_id(),
                "number": None,
                "time": self.now_us,
                "kind": kind,
                "account_id": account_id,
                "profile_id": profile_id,
                "platform": platform,
                "caller": caller,
                "peer": origin.peer,
                "request_id": origin.request_id,
                "result": result,
                "facts": to_json(kept),
                "personal": to_json(personal) if personal else None,
            }
        )

    def event_of(self, account: Any, kind: EventKind, **more: Any) -> None:
        """Records a fact about an account, whose row it is given."""
        self.event(kind, account_id=account.id, profile_id=account.profile_id, platform=account.platform, **more)

    def forget_profile(self) -> None:
        """What this transaction has recorded so far is written without its personal part: it is being erased."""
        for event in self._events:
            event["profile_id"], event["personal"] = "", None

    def write_events(self) -> bool:
        """Numbers the changes of accounts from the one counter row, last, so that numbers follow the commits.

        Says whether there are any.
        """
        if not self._events:
            return False
        changes = [event for event in self._events if event["kind"].changes_account]
        if changes:
            taken = self.run("take_numbers", take_numbers, count=len(changes)).fetchone()[0]
            for number, event in enumerate(changes, taken - len(changes) + 1):
                event["number"] = number
        for block in blocks(self._events):
            self._insert(block)
        return bool(changes)

    def _insert(self, events: Sequence[dict[str, Any]]) -> None:
        statement = self.statements.get(("events", len(events)), self.database, lambda: insert_events(len(events)))
        statement.run_in_order(self.database, [event[name] for event in events for name in RECORDED])


def take_numbers() -> Any:
    after = CounterRow.value + slot("count")
    return CounterRow.update(value=after).where(CounterRow.name == "events").returning(CounterRow.value)


def insert_events(count: int) -> Any:
    fields = [getattr(EventRow, name) for name in RECORDED]
    return EventRow.insert_many([[slot() for _ in fields] for _ in range(count)], fields=fields)


def to_json(facts: dict[str, Any]) -> str:
    return COMPACT.encode(facts)


def micros(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000)


def optional_micros(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1_000_000)


def instant(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1_000_000, UTC)


def optional_instant(us: int | None) -> datetime | None:
    return None if us is None else datetime.fromtimestamp(us / 1_000_000, UTC)


def words(text: str) -> tuple[str, ...]:
    """Scopes and ids are stored as text separated by spaces; none of them contains one (RFC 6749 section 3.3)."""
    return tuple(text.split())
