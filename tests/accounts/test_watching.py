"""Watching over the real store: what a watcher is told, in which order, from which place, and what ends it."""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from server.accounts.audit import Linker
from server.accounts.blocks import Blocks
from server.accounts.callers import Caller, Limits, Permission
from server.accounts.changes import Change
from server.accounts.endings import Endings
from server.accounts.erase import Retention
from server.accounts.errors import (
    AccountError,
    CallerNotPermitted,
    RateLimited,
    ResumeTokenTooOld,
    StoreUnavailable,
    UnknownPlatform,
)
from server.accounts.model import Account, Identity
from server.accounts.news import Heartbeat, Listing, Place
from server.accounts.read import Reader
from server.accounts.watcher import CutOff
from server.accounts.watching import Watching
from server.storage.clock import Clock
from server.storage.engine import Engine
from server.storage.store import Store
from tests.conftest import advance
from tests.storage.make import connected
from tests.storage.rows import sql

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

    async def listed(self) -> tuple[list[Account], Place]:
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
        place: Place | None = None,
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


@pytest.fixture
async def scene(store: Store) -> AsyncIterator[Scene]:
    scene = Scene(store)
    yield scene
    await scene.close()
    assert scene.watching.count == 0, "a watch that is closed leaves nothing behind"


async def test_the_accounts_come_first_and_then_each_change_in_its_order(scene: Scene) -> None:
    account = await connected(scene.store)
    watch = scene.watch(profile_id="p1")
    assert await watch.listed() == ([account], Place(await scene.store.newest_change()))
    await scene.rename(account, "countess")
    await scene.store.revoke_account(account.id, caller="web", supported=True, ends_user_grant=False)
    await connected(scene.store)
    await connected(scene.store, user="2")
    await scene.watching.poll()
    assert await watch.kinds(4) == ["identity_changed", "revoked", "reconnected", "connected"]
    assert await watch.rests()


async def test_many_accounts_are_listed_page_by_page(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.accounts.news.PAGE", 2)
    ids = [(await connected(scene.store, user=str(user))).id for user in range(5)]
    watch = scene.watch(profile_id="p1")
    pages = [await watch.next() for _ in range(3)]
    assert [page.complete for page in pages] == [False, False, True]
    assert [account.id for page in pages for account in page.accounts] == ids
    again = scene.watch(profile_id="p1", place=pages[0].place)
    listed, place = await again.listed()
    assert [account.id for account in listed] == ids[2:] and place == pages[2].place


async def test_an_unknown_profile_has_no_accounts_and_is_watched_like_any_other(scene: Scene) -> None:
    watch = scene.watch(profile_id="later")
    accounts, _ = await watch.listed()
    assert accounts == []
    await connected(scene.store, profile_id="later")
    await scene.watching.poll()
    assert await watch.kinds(1) == ["connected"]


async def test_two_changes_before_a_watcher_gets_to_run_are_both_told(scene: Scene) -> None:
    account = await connected(scene.store)
    watch = scene.watch(profile_id="p1")
    await watch.listed()
    await scene.rename(account, "one")
    await scene.rename(account, "two")
    await scene.watching.poll()
    assert await watch.kinds(2) == ["identity_changed", "identity_changed"]


async def test_a_caller_that_leaves_this_instant_costs_the_others_no_change(scene: Scene) -> None:
    account = await connected(scene.store)
    leaving = [scene.watch(profile_id="p1") for _ in range(8)]
    staying = scene.watch(profile_id="p1")
    for watch in (*leaving, staying):
        await watch.listed()
    await scene.rename(account, "one")
    for watch in leaving:
        watch.leave()
    await scene.watching.poll()
    await scene.renamed(account, 1)
    assert await staying.kinds(2) == ["identity_changed", "identity_changed"]


# --- resuming


async def test_a_resume_goes_on_behind_what_was_told(scene: Scene) -> None:
    account = await connected(scene.store)
    first = scene.watch(profile_id="p1")
    await first.listed()
    await scene.renamed(account, 3)
    told = [await first.next() for _ in range(3)]
    resumed = scene.watch(profile_id="p1", place=Place(told[1].mark))
    assert (await resumed.next()).mark == told[2].mark and await resumed.rests()
    resumed = scene.watch(profile_id="p1", place=Place(told[2].mark))
    assert await resumed.next() == Heartbeat(told[2].mark), "where there is nothing to tell, that is told at once"
    assert await resumed.rests()


async def test_a_resume_from_before_what_the_process_knows_reads_the_database(scene: Scene) -> None:
    account = await connected(scene.store)
    start = Place(await scene.store.newest_change())
    await scene.renamed(account, 3 * KEPT)
    watch = scene.watch(profile_id="p1", place=start)
    marks = [(await watch.next()).mark.number for _ in range(3 * KEPT)]
    assert marks == list(range(2, 2 + 3 * KEPT))
    await scene.renamed(account, 1)
    assert (await watch.next()).mark.number == 2 + 3 * KEPT


async def test_a_long_way_back_in_which_nothing_is_told_holds_up_nobody(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.accounts.news.PAGE", 1)
    account = await connected(scene.store)
    start = Place(await scene.store.newest_change())
    await scene.renamed(account, 5 * KEPT)
    watch = scene.watch(profile_id="another", place=start)
    turns = 0
    waiting = asyncio.create_task(watch.next())
    while not waiting.done():
        await asyncio.sleep(0)
        turns += 1
    assert isinstance(await waiting, Heartbeat)
    assert turns > 4 * KEPT, "others wait until all of it was read"


async def test_a_resume_after_a_restart_is_told_what_happened_meanwhile(scene: Scene) -> None:
    account = await connected(scene.store)
    start = Place(await scene.store.newest_change())
    await scene.rename(account, "countess")
    restarted = scene.process()
    await restarted.start()
    watch = scene.watch(profile_id="p1", place=start, watching=restarted)
    assert await watch.kinds(1) == ["identity_changed"]
    await watch.close()
    await restarted.stop()


async def test_a_place_that_this_process_has_not_read_yet_is_good(scene: Scene) -> None:
    account = await connected(scene.store)
    ahead = Place(await scene.store.newest_change())
    watch = scene.watch(profile_id="p1", place=ahead)
    assert await watch.next() == Heartbeat(ahead.mark)
    await scene.renamed(account, 1)
    assert await watch.kinds(1) == ["identity_changed"]


async def test_a_place_of_which_events_were_pruned_is_too_old(scene: Scene, clock: Clock) -> None:
    account = await connected(scene.store)
    old = Place(await scene.store.newest_change())
    await Linker(scene.store, "me").work_off()
    advance(clock, days=10)
    await scene.renamed(account, 1)
    await scene.store.prune_audit(before=await scene.store.now() - timedelta(days=5), limit=9)
    elsewhere = scene.process()
    assert isinstance(await scene.watch(place=old, watching=elsewhere).error(), ResumeTokenTooOld)


async def test_a_database_that_has_gone_back_makes_all_watchers_list_again(scene: Scene, engine: Engine) -> None:
    account = await connected(scene.store)
    watch = scene.watch()
    await watch.listed()
    await scene.renamed(account, 2)
    await watch.kinds(2)
    assert await watch.rests()
    sql(engine, "DELETE FROM events WHERE number >= 2")
    sql(engine, "UPDATE counters SET value = 1 WHERE name = 'events'")
    await scene.renamed(account, 1)
    assert isinstance(await watch.error(), ResumeTokenTooOld)
    assert scene.cut == ["gap"]
    again = scene.watch()
    await again.listed()
    await scene.renamed(account, 2)
    assert await again.kinds(2) == ["identity_changed", "identity_changed"]


# --- who is told


@pytest.mark.parametrize("caller, profile_id, platform", [
    (CALLER, "p2", None),
    (CALLER, None, "linkedin"),
    (dataclasses.replace(CALLER, platforms=frozenset({"linkedin"})), "p1", None),
    (ACME, None, None),
    (ACME, "p1", None),
])  # fmt: skip
async def test_what_a_watcher_may_not_see_or_did_not_ask_for_is_not_told(
    scene: Scene, caller: Caller, profile_id: str | None, platform: str | None
) -> None:
    watch = scene.watch(caller, profile_id, platform)
    assert (await watch.listed())[0] == []
    account = await connected(scene.store, profile_id="p1")
    await scene.renamed(account, 1)
    await scene.delete("p1", account)
    await scene.watching.poll()
    assert await watch.rests()
    resumed = scene.watch(
        caller, profile_id, platform, place=Place((await scene.store.recent_changes(limit=4))[0].mark)
    )
    assert isinstance(await resumed.next(), Heartbeat)


async def test_all_profiles_are_for_callers_that_may_list_all(scene: Scene) -> None:
    caller = dataclasses.replace(CALLER, permissions=frozenset({Permission.READ}))
    error = await scene.watch(caller).error()
    assert isinstance(error, CallerNotPermitted) and error.facts == {"permission": "list_all"}
    resumed = await scene.watch(caller, place=Place(await scene.store.newest_change())).error()
    assert isinstance(resumed, CallerNotPermitted)
    assert isinstance(await scene.watch(platform="myspace").error(), UnknownPlatform)


async def test_a_watcher_of_all_profiles_is_told_of_each_that_its_caller_sees(scene: Scene) -> None:
    everything, acme = scene.watch(), scene.watch(ACME)
    await everything.listed()
    await acme.listed()
    for profile_id in ("acme/1", "other/1", "acme/2"):
        await connected(scene.store, profile_id=profile_id)
    await scene.watching.poll()
    assert [(await everything.next()).account.profile_id for _ in range(3)] == ["acme/1", "other/1", "acme/2"]
    assert [(await acme.next()).account.profile_id for _ in range(2)] == ["acme/1", "acme/2"]


async def test_that_a_grant_ends_soon_is_told(scene: Scene, clock: Clock) -> None:
    life = timedelta(days=60)
    await connected(scene.store, life=life, due=life, refresh_token=False)
    watch = scene.watch()
    await watch.listed()
    endings = Endings(scene.store, timedelta(days=7))
    await endings.work_off()
    advance(clock, days=54)
    await endings.work_off()
    await endings.work_off()
    await scene.watching.poll()
    assert await watch.kinds(1) == ["expiring_soon"] and await watch.rests()


# --- deletions


async def erased(watch: Watched) -> str:
    change = await watch.next()
    assert isinstance(change, Change) and change.erases and change.account is None
    return change.account_id


async def test_a_deletion_is_told_once_to_those_who_saw_the_account(scene: Scene) -> None:
    account = await connected(scene.store, profile_id="acme/1")
    watches = [scene.watch(), scene.watch(profile_id="acme/1"), scene.watch(ACME), scene.watch(platform="twitter")]
    foreign = [scene.watch(profile_id="acme/2"), scene.watch(platform="linkedin")]
    for watch in (*watches, *foreign):
        await watch.listed()
    await scene.delete("acme/1", account)
    await scene.watching.poll()
    assert [await erased(watch) for watch in watches] == [account.id] * 4
    assert all([await watch.rests() for watch in (*watches, *foreign)])


async def test_nothing_but_its_deletion_is_told_of_an_account_that_is_gone(scene: Scene) -> None:
    start = Place(await scene.store.newest_change())
    account = await connected(scene.store, profile_id="acme/1")
    await scene.renamed(account, 1)
    await scene.delete("acme/1", account)
    await scene.watching.poll()
    resumed = scene.watch(place=start)
    assert await erased(resumed) == account.id and await resumed.rests()


async def test_a_deletion_is_told_to_who_resumes_later_by_the_digest_of_the_profile(scene: Scene, clock: Clock) -> None:
    account = await connected(scene.store, profile_id="acme/1")
    start = Place(await scene.store.newest_change())
    erasure = await scene.delete("acme/1", account)
    advance(clock, minutes=2)
    assert await scene.store.settle_erasure(erasure)
    await scene.watching.poll()
    assert await erased(scene.watch(profile_id="acme/1", place=start)) == account.id
    assert await erased(scene.watch(place=start)) == account.id
    assert isinstance(await scene.watch(profile_id="acme/2", place=start).next(), Heartbeat)
    assert isinstance(await scene.watch(ACME, platform="linkedin", place=start).next(), Heartbeat)
    # Whether one of its prefixes was that of the profile nobody knows any more.
    assert isinstance(await scene.watch(ACME, place=start).error(), ResumeTokenTooOld)


async def test_an_account_erased_after_its_time_is_told_while_its_profile_is_known(scene: Scene, clock: Clock) -> None:
    account = await connected(scene.store, profile_id="acme/1")
    await scene.store.revoke_account(account.id, caller="web", supported=False, ends_user_grant=False)
    start = Place(await scene.store.newest_change())
    watches = [scene.watch(), scene.watch(profile_id="acme/1"), scene.watch(ACME)]
    foreign = scene.watch(profile_id="acme/2")
    for watch in (*watches, foreign):
        await watch.listed()
    retention = Retention(scene.store, revoked_accounts=timedelta(days=90), audit=timedelta(days=400))
    advance(clock, days=91)
    await retention.work_off()
    await scene.watching.poll()
    assert [await erased(watch) for watch in watches] == [account.id] * 3
    assert await foreign.rests()
    advance(clock, minutes=10)
    await retention.work_off()
    late = scene.process()
    await late.poll()
    assert await erased(scene.watch(place=start, watching=late)) == account.id
    assert isinstance(await scene.watch(profile_id="acme/1", place=start, watching=late).error(), ResumeTokenTooOld)


# --- heartbeats, limits, ends


async def test_a_heartbeat_comes_when_nothing_has_changed_for_a_while(scene: Scene) -> None:
    watch = scene.watch(profile_id="p1")
    _, place = await watch.listed()
    scene.now += HEARTBEAT.total_seconds() / 2 - 0.1
    await scene.watching.poll()
    assert await watch.rests()
    for _ in range(3):
        await connected(scene.store, profile_id="other", user=str(scene.now))
        scene.now += HEARTBEAT.total_seconds()
        await scene.watching.poll()
        beat = await watch.next()
        assert beat == Heartbeat(await scene.store.newest_change()), "it resumes behind what was not for this watcher"
    assert place.mark != beat.mark


async def test_there_is_no_heartbeat_while_the_database_does_not_answer(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = scene.watch(profile_id="p1")
    await watch.listed()
    await scene.all_rest()

    async def away() -> Any:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(scene.store, "newest_change", away)
        scene.now += 60
        with pytest.raises(StoreUnavailable):
            await scene.watching.poll()
        assert await watch.rests()
    await scene.watching.poll()
    assert isinstance(await watch.next(), Heartbeat)


async def test_a_watcher_that_reads_too_slowly_is_cut_off_and_resumes_without_a_gap(scene: Scene) -> None:
    account = await connected(scene.store)
    slow, quick = scene.watch(profile_id="p1"), scene.watch(profile_id="p1")
    _, place = await slow.listed()
    await quick.listed()
    for _ in range(3):
        await scene.renamed(account, KEPT)
        assert len(await quick.kinds(KEPT)) == KEPT
        assert await quick.rests()
    place = Place((await slow.next()).mark)
    error = await slow.error()
    assert isinstance(error, RateLimited) and error.facts == {"limit": "watch_backlog"}
    assert scene.cut == ["slow"]
    resumed = scene.watch(profile_id="p1", place=place)
    assert len(await resumed.kinds(3 * KEPT - 1)) == 3 * KEPT - 1


@pytest.mark.parametrize("telling", ["a listing", "an old change", "a new change"])
async def test_a_watcher_that_takes_nothing_for_a_minute_is_cut_off_whatever_it_is_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, telling: str
) -> None:
    monkeypatch.setattr("server.accounts.news.PAGE", 1)
    account = await connected(scene.store)
    await connected(scene.store, user="2")
    start = Place(await scene.store.newest_change())
    stuck, reading = scene.watch(profile_id="p1"), scene.watch(profile_id="p1")
    await reading.listed()
    if telling == "an old change":
        for _ in range(2 * KEPT):
            await scene.renamed(account, 1)
            await reading.next()
        stuck = scene.watch(profile_id="p1", place=start)
    elif telling == "a new change":
        await stuck.listed()
        await scene.renamed(account, 1)
        await reading.next()
    await stuck.next()
    assert await reading.rests()
    scene.now += 59
    await scene.watching.look_after()
    assert scene.cut == []
    scene.now += 2
    await scene.watching.look_after()
    error = await stuck.error()
    assert isinstance(error, RateLimited) and error.facts == {"limit": "watch_backlog"}
    assert scene.cut == ["slow"], "one that rests is not slow"


async def test_a_blocked_caller_is_ended_while_the_poller_waits_for_the_database(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = scene.watch(ACME)
    await theirs.listed()
    await scene.all_rest()
    await scene.store.set_block("acme", reason="stolen", operator="ops")
    waits = asyncio.Event()

    async def hangs() -> Any:
        waits.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(scene.store, "newest_change", hangs)
    polling = asyncio.create_task(scene.watching.poll())
    await waits.wait()
    await scene.blocks.follow()
    await scene.watching.look_after()
    assert isinstance(await theirs.error(), CallerNotPermitted)
    polling.cancel()


async def test_a_blocked_caller_is_cut_off_in_the_middle_of_a_listing_that_hangs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = asyncio.Event()

    async def hangs(*_: Any, **__: Any) -> Any:
        lists.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(scene.store, "list_accounts", hangs)
    listing = asyncio.ensure_future(scene.watch(ACME).next())
    await lists.wait()
    await scene.store.set_block("acme", reason="stolen", operator="ops")
    await scene.blocks.follow()
    await scene.watching.look_after()
    scene.now += 1
    await scene.watching.look_after()
    with pytest.raises(asyncio.CancelledError) as caught:
        await listing
    [cut_off] = caught.value.args
    assert isinstance(cut_off, CutOff) and isinstance(cut_off.error, CallerNotPermitted)
    assert scene.watching.count == 0


async def test_many_changes_of_others_do_not_cut_off_a_watcher_that_rests(scene: Scene) -> None:
    mine, other = await connected(scene.store), await connected(scene.store, profile_id="other")
    watch = scene.watch(profile_id="p1")
    await watch.listed()
    for _ in range(3):
        await scene.renamed(other, KEPT)
    await scene.renamed(mine, 1)
    assert await watch.kinds(1) == ["identity_changed"] and scene.cut == []


async def test_the_watches_of_a_blocked_caller_end(scene: Scene) -> None:
    theirs, other = scene.watch(ACME), scene.watch()
    await theirs.listed()
    await other.listed()
    await scene.store.set_block("acme", reason="stolen", operator="ops")
    await scene.blocks.follow()
    await scene.watching.poll()
    error = await theirs.error()
    assert isinstance(error, CallerNotPermitted) and "blocked" in error.facts
    assert await other.rests() and scene.cut == ["blocked"]


async def test_a_caller_and_a_process_have_so_many_watches_and_no_more(scene: Scene) -> None:
    few = dataclasses.replace(CALLER, limits=Limits(watchers=2))
    watches = [scene.watch(few), scene.watch(few)]
    for watch in watches:
        await watch.listed()
    error = await scene.watch(few).error()
    assert isinstance(error, RateLimited) and error.facts == {"limit": "watchers"} and error.retry_after
    await watches[0].close()
    await scene.watch(few).listed()
    small = scene.process(most=1)
    first = scene.watch(watching=small)
    await first.listed()
    error = await scene.watch(ACME, watching=small).error()
    assert error.facts == {"limit": "all_watchers"}
    await first.close()


async def test_a_server_that_leaves_ends_all_watches_without_an_error(scene: Scene) -> None:
    watches = [scene.watch(), scene.watch(profile_id="p1")]
    for watch in watches:
        await watch.listed()
    await scene.watching.stop()
    for watch in (*watches, scene.watch(place=Place(await scene.store.newest_change()))):
        with pytest.raises(StopAsyncIteration):
            await watch.next()


async def test_a_commit_of_this_process_is_told_at_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.accounts.watching.POLL_SECONDS", 3600)
    scene.store.on_change = scene.watching.poke
    await scene.watching.start()
    watch = scene.watch()
    await watch.listed()
    await connected(scene.store)
    assert await watch.kinds(1) == ["connected"]
    await watch.close()
    await scene.watching.stop()


async def test_a_change_of_another_process_is_told_within_a_second(
    scene: Scene, new_id: Callable[[], str], engine: Engine, vault: Any
) -> None:
    await scene.watching.start()
    watch = scene.watch()
    await watch.listed()
    await connected(Store(engine, vault, new_id))
    async with asyncio.timeout(1):
        assert await watch.kinds(1) == ["connected"]
    await watch.close()
    await scene.watching.stop()
