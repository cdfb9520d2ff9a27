"""A process that watches, for tests: they ask for one piece of news at a time, and poll when they want."""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from server.accounts.blocks import Blocks
from server.accounts.callers import Caller, Permission
from server.accounts.errors import AccountError
from server.accounts.model import Account, Identity
from server.accounts.news import Listing, WatchPlace
from server.accounts.read import Reader
from server.accounts.watching import Watching
from server.storage.store import Store

CALLER = Caller("web", permissions=frozenset(Permission))
ACME = dataclasses.replace(CALLER, name="acme", profiles=("acme/",))
KEPT = 4
HEARTBEAT = timedelta(seconds=30)


class Watched:
    """A watch, asked for one piece of news at a time."""

    def __init__(self, news: AsyncIterator[Any]) -> None:
        self._news = news
        self._next: asyncio.Task[Any] | None = None

    async def next(self) -> Any:
        """Raises StopAsyncIteration at the end."""
        async with asyncio.timeout(10):
            news = await self._begun()
        self._next = None
        return news

    async def kinds(self, count: int) -> list[str]:
        return [(await self.next()).kind for _ in range(count)]

    async def rests(self) -> bool:
        """Whether there is nothing to tell."""
        task = self._begun()
        for _ in range(20):
            await asyncio.sleep(0)
        return not task.done()

    async def listed(self) -> tuple[list[Account], WatchPlace]:
        """All listings, up to the last."""
        accounts: list[Account] = []
        while True:
            news = await self.next()
            assert isinstance(news, Listing)
            accounts += news.accounts
            if news.complete:
                assert await self.rests()
                return accounts, news.place

    async def error(self) -> AccountError:
        with pytest.raises(AccountError) as caught:
            await self.next()
        return caught.value

    def _begun(self) -> asyncio.Task[Any]:
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._news))
        return self._next

    def leave(self) -> None:
        """The caller is gone; the watch has had no moment yet to learn of it."""
        assert self._next is not None and self._next.cancel()

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait([self._next])
        await self._news.aclose()  # type: ignore[attr-defined]


class Scene:
    """A process that watches; its poller polls when it is told to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.blocks = Blocks(store)
        self.now = 0.0
        self.numbers = itertools.count()
        self.cut: list[str] = []
        self.watches: list[Watched] = []
        self.watching = self.process()

    def process(self, **other: Any) -> Watching:
        options = {"heartbeat": HEARTBEAT, "most": 20, "kept": KEPT, **other}
        reader = Reader(self.store, {"twitter", "linkedin"})
        return Watching(self.store, reader, self.blocks, self, lambda: self.now, **options)  # type: ignore[arg-type]

    def cut_off(self, why: str) -> None:
        self.cut.append(why)

    def watch(
        self,
        caller: Caller = CALLER,
        profile_id: str | None = None,
        platform: str | None = None,
        place: WatchPlace | None = None,
        watching: Watching | None = None,
    ) -> Watched:
        news = (watching or self.watching).watch(caller, profile_id=profile_id, platform=platform, place=place)
        self.watches.append(Watched(news))
        return self.watches[-1]

    async def rename(self, account: Account, handle: str) -> None:
        identity = Identity(account.platform_user_id, handle)
        await self.store.update_identity(account.grant_id, identity, due_time=await self.store.now() + HEARTBEAT)

    async def renamed(self, account: Account, count: int) -> None:
        for _ in range(count):
            await self.rename(account, f"handle-{next(self.numbers)}")
        await self.watching.poll()

    async def delete(self, profile_id: str, account: Account) -> Any:
        erasure = await self.store.begin_erasure(profile_id, caller="web")
        await self.store.erase_account(account.id, erasure, supported=True, ends_user_grant=False)
        while await self.store.erase_traces(erasure):
            pass
        return erasure

    async def all_rest(self) -> None:
        """Until none reads the database any more, which PostgreSQL answers in its own time."""
        deadline = time.monotonic() + 10
        while not all(watcher.rests for watcher in self.watching._watchers.all()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0)

    async def close(self) -> None:
        for watch in self.watches:
            await watch.close()
