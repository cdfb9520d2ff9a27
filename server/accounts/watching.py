"""Watching: one poller a process reads the changes of accounts and tells all watchers, each from its own place.

Nothing is queued for a watcher: it goes through the newest changes, which all share, at its own pace, and is cut off
when it falls behind them. One that rests costs nothing: it is woken for what it is told, a heartbeat, or its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from server.accounts.blocks import Blocks
from server.accounts.callers import Caller
from server.accounts.changes import Change, Mark, View
from server.accounts.errors import CallerNotPermitted, StoreUnavailable
from server.accounts.news import PAGE, News, Teller, WatchPlace, too_old, too_slow
from server.accounts.ports import Observer, Store
from server.accounts.read import Reader
from server.accounts.recent import Recent
from server.accounts.watcher import Watcher
from server.accounts.watchers import Watchers

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.5
"""How long a change that another process made may wait here."""
KEPT: Final = 4096
"""How many changes a watcher may be behind."""
READ_AT_START: Final = 256
SLOW_SECONDS: Final = 60.0
"""How long a watcher may leave what it is told untaken, be it a listing, an old change or a new one."""
END_SECONDS: Final = 1.0
"""How long a watcher that is ended may take to say so; one that does not read is cut off then."""


class Watching:
    """The watchers of this process."""

    def __init__(
        self,
        store: Store,
        reader: Reader,
        blocks: Blocks,
        observer: Observer,
        clock: Callable[[], float],
        *,
        heartbeat: timedelta,
        most: int,
        kept: int = KEPT,
    ) -> None:
        self._store = store
        self._reader = reader
        self._blocks = blocks
        self._observer = observer
        self._clock = clock
        self._recent = Recent(kept)
        self._teller = Teller(store, reader, self._recent, observer, clock, heartbeat)
        self._watchers = Watchers(most)
        self._polling = asyncio.Lock()
        self._committed = asyncio.Event()
        self._leaving = False
        self._following: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        return len(self._watchers)

    async def start(self) -> None:
        """Reads the newest changes, for watchers that resume after a restart, and then what is new.

        Raises StoreUnavailable.
        """
        await self._begin()
        self._following = asyncio.create_task(self._follow_changes())

    async def watch(
        self, caller: Caller, *, profile_id: str | None, platform: str | None, place: WatchPlace | None
    ) -> AsyncGenerator[News, None]:
        """Lists the accounts unless there is a place to go on from, then tells every change, until it is ended.

        Raises CallerNotPermitted, UnknownPlatform, RateLimited, ResumeTokenTooOld.
        """
        self._reader.check(caller, profile_id=profile_id, platform=platform)
        with self._watchers.admitted(View(caller, profile_id, platform)) as watcher:
            if self._leaving:
                watcher.end(self._clock())
            async with aclosing(self._teller.tell(watcher, place)) as all_news:
                async for news in all_news:
                    watcher.telling_since = self._clock()
                    yield news
                    watcher.telling_since = math.inf

    # --- what all of them are told from

    def poke(self) -> None:
        """Something was committed in this process: it is told at once."""
        if len(self._watchers):
            self._committed.set()

    async def _follow_changes(self) -> None:
        """Polls, and at once when poked; never returns."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._committed.wait()
            self._committed.clear()
            try:
                await self.poll()
            except StoreUnavailable as error:
                log.warning("watchers wait for the database", extra={"why": error.text})
            except Exception:
                log.exception("the poller of changes failed; it goes on")

    async def poll(self) -> None:
        """Reads what is new and tells those concerned; heartbeats and ends are due, too. Raises StoreUnavailable.

        While the database does not answer there are no heartbeats: they say that nothing is missing.
        """
        await self.look_after()
        async with self._polling:
            await self._read()
        self._beat()

    async def look_after(self) -> None:
        """Ends whoever is blocked or slow. It is called beside the poller, which may have to wait for the database."""
        self._end_blocked()
        self._end_slow()
        self._cut_off_ended()

    async def stop(self) -> None:
        """Ends all watchers, which resume elsewhere; returns when they are gone."""
        self._leaving = True
        if self._following is not None:
            self._following.cancel()
        tasks = [watcher.task for watcher in self._watchers.all()]
        self._end(self._watchers.all(), None)
        if tasks:
            await asyncio.wait(tasks, timeout=END_SECONDS)
        for watcher in self._watchers.all():
            watcher.cut_off()

    async def _begin(self) -> None:
        changes = await self._store.recent_changes(limit=READ_AT_START)
        self._recent.begin(changes[-1].mark if changes else await self._store.newest_change(), changes)

    async def _read(self) -> None:
        newest, known = await self._store.newest_change(), self._recent.newest
        # An event that is gone was pruned, long after it was told.
        while newest not in (known, Mark(known.number, "")):
            changes = await self._store.changes_since(known, limit=PAGE)
            if not changes:
                log.critical("changes are missing between those known and the newest; all watchers list again")
                await self._begin()
                self._end(self._watchers.all(), too_old())
                self._observer.cut_off("gap")
                return
            for change in changes:
                self._add(change)
            known = self._recent.newest
            newest = newest if newest.number > known.number else known

    def _add(self, change: Change) -> None:
        before = self._recent.newest
        self._recent.add(change)
        for watcher in self._watchers.concerned(change):
            watcher.skip_to(before)
            watcher.wake()

    def _beat(self) -> None:
        now = self._clock()
        for watcher in self._watchers.all():
            if watcher.beat_time <= now:
                watcher.skip_to(self._recent.newest)
                watcher.wake()

    def _end_blocked(self) -> None:
        for name in self._watchers.callers:
            try:
                self._blocks.check(name)
            except CallerNotPermitted as error:
                ended = self._end((each for each in self._watchers.all() if each.view.caller.name == name), error)
                for _ in range(ended):
                    self._observer.cut_off("blocked")

    def _end_slow(self) -> None:
        """Those that read nothing at all: those that only fall behind find out when they read again."""
        late = self._clock() - SLOW_SECONDS
        stuck = (each for each in self._watchers.all() if each.telling_since <= late)
        for _ in range(self._end(stuck, too_slow())):
            self._observer.cut_off("slow")

    def _end(self, watchers: Iterable[Watcher], error: Exception | None) -> int:
        going = [watcher for watcher in watchers if not watcher.ended]
        for watcher in going:
            watcher.end(self._clock(), error)
        return len(going)

    def _cut_off_ended(self) -> None:
        """Those that do not read never get to their end by themselves."""
        for watcher in self._watchers.all():
            if watcher.end_time is not None and watcher.end_time + END_SECONDS <= self._clock():
                watcher.cut_off()
