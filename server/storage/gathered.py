"""Writes of one kind that wait together go together: in one transaction, with one sync to disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Final, Generic, TypeVar

from server.accounts.errors import StoreUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST: Final = 64
CROWD: Final = 8
"""So many within `patience` are worth waiting for others. PostgreSQL's `commit_siblings` is its like."""

MOST_WAITING: Final = 10_000
"""More than all calls that may be under way leave behind. Whoever gives up leaves its item here, and a database that
hangs takes none: callers who try again and again would fill the memory."""


class Gathered(Generic[Item, Result]):
    """Hands items to `write`, which gives a result for each; what comes while it runs waits and goes next.

    Where they come in crowds, each group waits for `patience` seconds for more, or until it is full, since a commit
    costs more than what is in it; who comes alone waits for nobody.
    """

    def __init__(
        self, write: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], *, patience: float = 0.0
    ) -> None:
        self._write = write
        self._patience = patience
        self._came: deque[float] = deque(maxlen=CROWD)
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._enough = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    async def put(self, item: Item) -> Result:
        """The result of `item`, which is written even if the caller stops waiting.

        Raises whatever `write` raises, and StoreUnavailable where MOST_WAITING wait already.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise StoreUnavailable("the database is far behind with what waits for it")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        self._came.append(loop.time())
        if len(self._waiting) >= MOST:
            self._enough.set()
        if self._writing is None:
            # In a context of its own: what waits together comes from several callers, and is written for none of them.
            self._writing = asyncio.create_task(self._write_all(), context=Context())
        return await future

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                if self._is_crowded and len(self._waiting) < MOST:
                    await self._wait_for_more()
                group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                await self._settle(group)
        finally:
            self._writing = None

    async def _wait_for_more(self) -> None:
        self._enough = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await self._enough.wait()

    @property
    def _is_crowded(self) -> bool:
        return len(self._came) == CROWD and self._came[-1] - self._came[0] < self._patience

    async def _settle(self, group: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._write([item for item, _ in group])
        except StoreUnavailable as error:
            results = [error] * len(group)
        except Exception as error:
            if len(group) > 1:
                # One of them is at fault: the others must not fail with it.
                for one in group:
                    await self._settle([one])
                return
            results = [error]
        for (_, future), result in zip(group, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
