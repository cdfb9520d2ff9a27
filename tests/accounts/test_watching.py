"""Watching over the real store: what a watcher is told, in which order, and from which place."""

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from server.accounts.audit import Linker
from server.accounts.callers import Caller, Permission
from server.accounts.changes import Change
from server.accounts.endings import Endings
from server.accounts.erase import Retention
from server.accounts.errors import CallerNotPermitted, ResumeTokenTooOld, UnknownPlatform
from server.accounts.news import Heartbeat, WatchPlace
from server.storage.clock import Clock
from server.storage.engine import Engine
from server.storage.store import Store
from tests.accounts.watched import ACME, CALLER, KEPT, Scene, Watched
from tests.conftest import advance
from tests.storage.make import connected
from tests.storage.rows import sql


async def test_the_accounts_come_first_and_then_each_change_in_its_order(scene: Scene) -> None:
    account = await connected(scene.store)
    watch = scene.watch(profile_id="p1")
    assert await watch.listed() == ([account], WatchPlace(await scene.store.newest_change()))
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
    resumed = scene.watch(profile_id="p1", place=WatchPlace(told[1].mark))
    assert (await resumed.next()).mark == told[2].mark and await resumed.rests()
    resumed = scene.watch(profile_id="p1", place=WatchPlace(told[2].mark))
    assert await resumed.next() == Heartbeat(told[2].mark), "where there is nothing to tell, that is told at once"
    assert await resumed.rests()


async def test_a_resume_from_before_what_the_process_knows_reads_the_database(scene: Scene) -> None:
    account = await connected(scene.store)
    start = WatchPlace(await scene.store.newest_change())
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
    start = WatchPlace(await scene.store.newest_change())
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
    start = WatchPlace(await scene.store.newest_change())
    await scene.rename(account, "countess")
    restarted = scene.process()
    await restarted.start()
    watch = scene.watch(profile_id="p1", place=start, watching=restarted)
    assert await watch.kinds(1) == ["identity_changed"]
    await watch.close()
    await restarted.stop()


async def test_a_place_that_this_process_has_not_read_yet_is_good(scene: Scene) -> None:
    account = await connected(scene.store)
    ahead = WatchPlace(await scene.store.newest_change())
    watch = scene.watch(profile_id="p1", place=ahead)
    assert await watch.next() == Heartbeat(ahead.mark)
    await scene.renamed(account, 1)
    assert await watch.kinds(1) == ["identity_changed"]


async def test_a_place_of_which_events_were_pruned_is_too_old(scene: Scene, clock: Clock) -> None:
    account = await connected(scene.store)
    old = WatchPlace(await scene.store.newest_change())
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
        caller, profile_id, platform, place=WatchPlace((await scene.store.recent_changes(limit=4))[0].mark)
    )
    assert isinstance(await resumed.next(), Heartbeat)


async def test_all_profiles_are_for_callers_that_may_list_all(scene: Scene) -> None:
    caller = dataclasses.replace(CALLER, permissions=frozenset({Permission.READ}))
    error = await scene.watch(caller).error()
    assert isinstance(error, CallerNotPermitted) and error.facts == {"permission": "list_all"}
    resumed = await scene.watch(caller, place=WatchPlace(await scene.store.newest_change())).error()
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
    start = WatchPlace(await scene.store.newest_change())
    account = await connected(scene.store, profile_id="acme/1")
    await scene.renamed(account, 1)
    await scene.delete("acme/1", account)
    await scene.watching.poll()
    resumed = scene.watch(place=start)
    assert await erased(resumed) == account.id and await resumed.rests()


async def test_a_deletion_is_told_to_who_resumes_later_by_the_digest_of_the_profile(scene: Scene, clock: Clock) -> None:
    account = await connected(scene.store, profile_id="acme/1")
    start = WatchPlace(await scene.store.newest_change())
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
    start = WatchPlace(await scene.store.newest_change())
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
