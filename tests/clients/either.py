"""Both clients behind one face, so that each test of the suite proves its sentence for both."""

import asyncio
import inspect
from typing import Any, Self

from synposter_accounts import Accounts

KEY = "key-canary"


class Either:
    """One of the two clients, called alike; the sync one on a thread, as the server runs on the test's loop."""

    def __init__(self, kind: type, target: str, *, timeout: float = 10.0, **options: Any) -> None:
        self.threaded = kind is Accounts
        self.client = kind(target, KEY, timeout=timeout, **options)

    async def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        """Calls a method; of a list all accounts."""
        method = getattr(self.client, name)
        if self.threaded:
            return await asyncio.to_thread(lambda: whole(method(*arguments, **keywords)))
        result = method(*arguments, **keywords)
        return [each async for each in result] if inspect.isasyncgen(result) else await result

    async def first(self, name: str, *arguments: Any) -> Any:
        """The first account of a list, whose rest is not asked for."""
        listing = getattr(self.client, name)(*arguments)
        return await (asyncio.to_thread(next, listing) if self.threaded else anext(listing))

    async def close(self) -> None:
        await (asyncio.to_thread(self.client.close) if self.threaded else self.client.close())

    async def __aenter__(self) -> Self:
        await (asyncio.to_thread(self.client.__enter__) if self.threaded else self.client.__aenter__())
        return self

    async def __aexit__(self, *error: Any) -> None:
        leave = self.client.__exit__ if self.threaded else self.client.__aexit__
        await (asyncio.to_thread(leave, *error) if self.threaded else leave(*error))


def whole(result: Any) -> Any:
    return list(result) if inspect.isgenerator(result) else result
