"""The rewrap: every data key that an older key wraps is wrapped by the active one, beside running servers.

No value is opened: the inner layer stays as it is. It can be stopped at any instant and begun again, since each value
names its key. Each value is swapped only for the very bytes that were read, so whoever writes in between wins.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from peewee import Database

from server.accounts.errors import StoreUnavailable
from server.storage.engine import Engine
from server.storage.key_use import count_wraps_unless_retired
from server.storage.sealed import SEALED, SealedColumn, page
from server.storage.statement import Statements, slot
from server.storage.vault import SealBroken, Vault

log = logging.getLogger(__name__)

LARGEST_BATCH = 200
PASSES = 10
"""More than enough: what is written while it runs is wrapped by the active key by itself."""
PATIENCE_SECONDS = 60.0


class Swap(NamedTuple):
    key: str
    old: bytes
    new: bytes


@dataclass
class Report:
    """What a rewrap has done."""

    rewrapped: int = 0
    overtaken: int = 0
    """Somebody else wrote or held the row; seen to in the next pass."""
    complete: bool = False
    """A whole pass found nothing to do."""
    broken: int = 0
    """Values that do not open here, in the last pass; they stay as they are."""


class Rewrapper:
    """Works through the database. `rate` is values a second; it rests at least as long as it works."""

    def __init__(
        self,
        engine: Engine,
        vault: Vault,
        *,
        rate: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._rate = rate
        self._batch = max(1, min(LARGEST_BATCH, round(rate / 10)))
        self._sleep = sleep
        self._target = vault.ring.active.id
        self._statements = Statements()
        self.report = Report()

    async def run(self, progress: Callable[[int], None] = lambda _: None) -> Report:
        """Returns when a whole pass found nothing more to do. Raises StoreUnavailable, and KeyRingError when the key it
        wraps with was retired meanwhile."""
        for _ in range(PASSES):
            before = self.report.rewrapped, self.report.overtaken
            self.report.broken = 0
            for column in SEALED:
                await self._work_through(column, progress)
            if (self.report.rewrapped, self.report.overtaken) == before:
                self.report.complete = True
                break
            if self.report.rewrapped == before[0]:
                await self._sleep(1.0)  # all that is left is in others' hands
        return self.report

    async def _work_through(self, column: SealedColumn, progress: Callable[[int], None]) -> None:
        after, size = "", self._batch * 5
        while True:
            rows = await self._patiently(self._engine.read, lambda db: page(db, column, after, size, self._target))  # noqa: B023
            swaps = [swap for row in rows if row.old and (swap := self._rewrapped(column, row))]
            for start in range(0, len(swaps), self._batch):
                await self._swap(column, swaps[start : start + self._batch], progress)
            if len(rows) < size:
                return
            after = getattr(rows[-1], column.key.name)

    def _rewrapped(self, column: SealedColumn, row: Any) -> Swap | None:
        key = getattr(row, column.key.name)
        try:
            return Swap(key, bytes(row.old), self._vault.rewrap(bytes(row.old), column.context(row)))
        except SealBroken:
            self.report.broken += 1
            log.warning("a sealed value does not open; it keeps its key", extra={"column": column.name, "row": key})
            return None

    async def _swap(self, column: SealedColumn, swaps: Sequence[Swap], progress: Callable[[int], None]) -> None:
        began = time.monotonic()
        changed = await self._patiently(self._engine.write, lambda db: self._swap_in(db, column, swaps))
        self.report.rewrapped += changed
        self.report.overtaken += len(swaps) - changed
        progress(changed)
        took = time.monotonic() - began
        await self._sleep(max(len(swaps) / self._rate - took, took))

    def _swap_in(self, database: Database, column: SealedColumn, swaps: Sequence[Swap]) -> int:
        """How many values were still those that were read.

        Rows that somebody has locked are left to them: who waits for a lock while it holds others can cause a deadlock.
        """
        count_wraps_unless_retired(database, self._target, len(swaps))
        if self._engine.locks_rows:
            wanted = column.model.select(column.key).where(column.key.in_([swap.key for swap in swaps]))
            free = {key for [key] in wanted.for_update(skip_locked=True).tuples().execute(database)}
            swaps = [swap for swap in swaps if swap.key in free]
        statement = self._statements.get(
            column.name,
            database,
            lambda: column.model.update({column.field: slot("new")}).where(
                column.key == slot("key"), column.field == slot("old")
            ),
        )
        cursors = (statement.run(database, key=swap.key, old=swap.old, new=swap.new) for swap in swaps)
        return sum(database.rows_affected(cursor) for cursor in cursors)

    async def _patiently(self, run: Callable[[Any], Awaitable[Any]], work: Callable[[Database], Any]) -> Any:
        """A database that does not answer for a while is waited for; what it may have done is found done."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await run(work)
            except StoreUnavailable:
                if time.monotonic() > give_up:
                    raise
                await self._sleep(1.0)
