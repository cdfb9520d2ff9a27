"""What one watcher is told: the accounts as they stand, the changes since then, heartbeats; at its own pace."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from server.accounts.changes import Change, Mark, View
from server.accounts.errors import RateLimited, ResumeTokenTooOld
from server.accounts.model import Account
from server.accounts.ports import Observer, Store
from server.accounts.read import Reader
from server.accounts.recent import Recent
from server.accounts.watcher import Watcher

PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class WatchPlace:
    """Where a watch goes on: behind a change; and, while its accounts are still listed, after one of them."""

    mark: Mark
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Some accounts as they stand, and where to go on."""

    accounts: tuple[Account, ...]
    place: WatchPlace

    @property
    def complete(self) -> bool:
        return self.place.after is None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing is missing up to here."""

    mark: Mark


News: TypeAlias = Listing | Change | Heartbeat


class Teller:
    """Goes through the recent changes for one watcher after the other; what is older it reads from the database."""

    def __init__(
        self,
        store: Store,
        reader: Reader,
        recent: Recent,
        observer: Observer,
        clock: Callable[[], float],
        heartbeat: timedelta,
    ) -> None:
        self._store = store
        self._reader = reader
        self._recent = recent
        self._observer = observer
        self._clock = clock
        self._heartbeat = heartbeat.total_seconds()

    async def tell(self, watcher: Watcher, place: WatchPlace | None) -> AsyncGenerator[News, None]:
        """Ends when the watcher is ended. Raises what it was ended with; RateLimited, ResumeTokenTooOld."""
        if place is None:
            # First the mark, then the accounts: what changes in between is told again, and never left out.
            place = WatchPlace(await self._store.newest_change(), after="")
        elif not self._recent.holds(place.mark):
            await self._since(place.mark, limit=1)
        watcher.mark = place.mark
        async for listing in self._list(watcher, place.after):
            yield listing
        async for change in self._catch_up(watcher):
            yield change
        async for news in self._follow(watcher):
            yield news
        if watcher.error is not None:
            raise watcher.error

    async def _list(self, watcher: Watcher, after: str | None) -> AsyncGenerator[Listing, None]:
        view = watcher.view
        while after is not None and not watcher.ended:
            page = await self._reader.list(
                view.caller,
                profile_id=view.profile_id,
                platform=view.platform,
                statuses=frozenset(),
                size=PAGE,
                after=after,
            )
            after = page.accounts[-1].id if page.more else None
            self._put_off_heartbeat(watcher)
            yield Listing(page.accounts, WatchPlace(watcher.mark, after))

    async def _catch_up(self, watcher: Watcher) -> AsyncGenerator[Change, None]:
        """Reads what this process does not know any more."""
        if watcher.view.profile_id is not None:
            watcher.view = await self._with_digest(watcher.view, watcher.view.profile_id)
        while not (watcher.ended or self._recent.reaches(watcher.mark)):
            changes = await self._since(watcher.mark, limit=PAGE)
            if not changes:
                raise too_old()
            for change in changes:
                if watcher.ended:
                    return
                watcher.mark = change.mark
                if watcher.view.sees(change):
                    yield change
            await asyncio.sleep(0)  # SQLite answers at once: where little is told, others would wait for all the way

    async def _follow(self, watcher: Watcher) -> AsyncGenerator[Change | Heartbeat, None]:
        while not watcher.ended:
            if not self._recent.reaches(watcher.mark):
                self._observer.cut_off("slow")
                raise too_slow()
            change = self._recent.after(watcher.mark)
            if change is not None:
                watcher.mark = change.mark
                if watcher.view.sees(change):
                    self._put_off_heartbeat(watcher)
                    yield change
            elif watcher.beat_time <= self._clock():
                self._put_off_heartbeat(watcher)
                yield Heartbeat(watcher.mark)
            else:
                await watcher.rest()

    async def _since(self, mark: Mark, limit: int) -> tuple[Change, ...]:
        changes = await self._store.changes_since(mark, limit=limit)
        if changes is None:
            raise too_old()
        return changes

    async def _with_digest(self, view: View, profile_id: str) -> View:
        return View(view.caller, profile_id, view.platform, await self._store.profile_digest(profile_id))

    def _put_off_heartbeat(self, watcher: Watcher) -> None:
        """Spread over time, so that those who came together are not told together."""
        share = 0.5 + random.random() / 2  # noqa: S311 (spreads load; guards nothing)
        watcher.beat_time = self._clock() + self._heartbeat * share


def too_slow() -> RateLimited:
    return RateLimited("the watcher read too slowly; resume", timedelta(), limit="watch_backlog")


def too_old() -> ResumeTokenTooOld:
    return ResumeTokenTooOld("what changed since is not known any more; watch again without a resume token")
