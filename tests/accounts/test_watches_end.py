"""What keeps a watch alive, and what ends it: slowness, a block, too many, a server that leaves."""

import asyncio
import dataclasses
from typing import Any

import pytest

from server.accounts.callers import Limits
from server.accounts.errors import CallerNotPermitted, RateLimited, StoreUnavailable
from server.accounts.news import Heartbeat, WatchPlace
from server.accounts.watcher import CutOff
from tests.accounts.watched import ACME, CALLER, HEARTBEAT, KEPT, Scene
from tests.storage.make import connected


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
    place = WatchPlace((await slow.next()).mark)
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
    start = WatchPlace(await scene.store.newest_change())
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
    for watch in (*watches, scene.watch(place=WatchPlace(await scene.store.newest_change()))):
        with pytest.raises(StopAsyncIteration):
            await watch.next()
