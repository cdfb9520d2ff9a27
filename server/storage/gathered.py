"""Writes of one kind that wait together go together: in one transaction, with one sync to disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from server.accounts.errors import StoreUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 64


class Gathered(Generic[Item, Result]):
    """Hands items to `write`, which gives a result for each; what comes while it runs waits and goes next."""

    def __init__(self, write: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._write = write
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def put(self, item: Item) -> Result:
        """The result of `item`, which is written even if the caller stops waiting. Raises whatever `write` raises."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._writing is None:
            # In a context of its own: what waits together comes from several callers, and is written for none of them.
            self._writing = asyncio.create_task(self._write_all(), context=Context())
        return await future

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                await self._settle(group)
        finally:
            self._writing = None

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
