"""The contract of every store: how due grants are claimed, and what a refresh leaves behind."""

import asyncio
import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from server.accounts.flow import Phase
from server.accounts.grants import Commit, GrantState, Retry
from server.accounts.model import PlatformRevocation, Secret, Status, StatusReason
from server.storage.clock import Clock
from server.storage.engine import Engine
from server.storage.store import Store
from tests.storage.make import SCOPES, begun, claim, connected, refreshed, revoke, token_set
from tests.storage.rows import events, sql

MINUTE = timedelta(minutes=1)
DUE = timedelta(minutes=97)


async def test_only_what_is_due_is_claimed_soonest_first(store: Store, clock: Clock) -> None:
    await connected(store, user="1", due=timedelta(minutes=30))
    await connected(store, user="2", due=timedelta(minutes=10))
    await connected(store, user="3", due=timedelta(minutes=20))
    assert await claim(store) == []
    clock.offset += timedelta(minutes=21)
    claimed = await claim(store)
    assert len(claimed) == 2
    assert claimed[0].due_time < claimed[1].due_time
    assert (claimed[0].sends, claimed[0].found) == (0, GrantState.READY)


async def test_a_grant_is_claimed_by_one_of_many(store: Store, clock: Clock) -> None:
    for user in range(10):
        await connected(store, user=str(user))
    clock.offset += DUE
    claims = await asyncio.gather(*(claim(store, owner=str(n), limit=3) for n in range(8)))
    ids = [grant.id for some in claims for grant in some]
    assert len(ids) == len(set(ids)) == 10


async def test_a_refreshed_token_set_replaces_the_spent_one(store: Store, clock: Clock) -> None:
    account = await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    now = await store.now()
    fresh = token_set(2, expire_time=now + timedelta(hours=2))
    assert await store.commit_refresh(refreshed(grant, fresh, now + MINUTE)) is Commit.STORED
    after = await store.account(account.id)
    assert after is not None
    assert after.last_refresh_time is not None and abs(after.last_refresh_time - now) < MINUTE
    assert after.update_time == account.update_time
    clock.offset += timedelta(minutes=2)
    [again] = await claim(store)
    assert again.token_set == fresh
    assert (again.generation, again.sends, again.attempts) == (2, 0, 0)


async def test_a_commit_of_unknown_outcome_can_be_repeated(store: Store, clock: Clock) -> None:
    await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    now = await store.now()
    offered = refreshed(grant, token_set(2, expire_time=now), now)
    assert await store.commit_refresh(offered) is Commit.STORED
    assert await store.commit_refresh(offered) is Commit.STORED
    [again] = await claim(store)
    assert again.generation == 2
    assert not await store.use_candidate(again)


async def test_a_generation_is_stored_once_and_the_loser_is_parked_as_the_candidate(store: Store, clock: Clock) -> None:
    await connected(store)
    clock.offset += DUE
    [first] = await claim(store, owner="a")
    clock.offset += timedelta(seconds=61)
    [second] = await claim(store, owner="b")
    assert (second.found, second.sends) == (GrantState.SENT, 1)
    now = await store.now()
    assert await store.commit_refresh(refreshed(second, token_set(2, expire_time=now), now)) is Commit.STORED
    assert await store.commit_refresh(refreshed(first, token_set(3, expire_time=now), now)) is Commit.LOST
    [third] = await claim(store)
    assert third.token_set.refresh_token == Secret("rt-canary-2")
    assert await store.use_candidate(third)
    [fourth] = await claim(store)
    assert fourth.token_set.refresh_token == Secret("rt-canary-3")
    assert not await store.use_candidate(fourth)


async def test_a_pair_that_comes_late_is_no_candidate_when_its_grant_was_refreshed_again_since(
    store: Store, clock: Clock
) -> None:
    """The journal may bring what the database had taken after all: sent again, it would look like a stolen token."""
    await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    now = await store.now()
    journaled = refreshed(grant, token_set(2, expire_time=now), now)
    assert await store.commit_refresh(journaled) is Commit.STORED
    [again] = await claim(store)
    assert await store.commit_refresh(refreshed(again, token_set(3, expire_time=now), now)) is Commit.STORED
    assert await store.commit_refresh(journaled) is Commit.LOST
    [last] = await claim(store)
    assert last.token_set.refresh_token == Secret("rt-canary-3")
    assert not await store.use_candidate(last)


async def test_a_reply_that_nobody_could_read_opens_also_when_a_candidate_has_taken_the_grant_over(
    store: Store, clock: Clock
) -> None:
    await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    now = await store.now()
    for number in (2, 3):
        await store.commit_refresh(refreshed(grant, token_set(number, expire_time=now), now))
    [again] = await claim(store)
    await store.release(again, Retry(GrantState.UNKNOWN, now, spent=True), error="unreadable", reply=b"{reply")
    [last] = await claim(store)
    assert await store.use_candidate(last)
    [unread] = await store.unread()
    assert (unread.generation, unread.replies) == (last.generation + 1, (Secret("{reply"),))


async def test_refreshes_that_wait_together_are_stored_together(
    store: Store, clock: Clock, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in range(20):
        await connected(store, user=str(user))
    clock.offset += DUE
    grants = await claim(store, limit=20)
    now = await store.now()
    writes = 0
    write = engine.write

    async def counted(work: Any) -> Any:
        nonlocal writes
        writes += 1
        return await write(work)

    monkeypatch.setattr(engine, "write", counted)
    offered = [refreshed(grant, token_set(n, expire_time=None), now) for n, grant in enumerate(grants)]
    assert set(await asyncio.gather(*map(store.commit_refresh, offered))) == {Commit.STORED}
    assert writes <= 2
    again = {grant.id: grant for grant in await claim(store, limit=20)}
    assert [again[each.grant_id].token_set for each in offered] == [each.token_set for each in offered]
    assert {grant.generation for grant in again.values()} == {2}


async def test_of_two_refreshes_of_one_grant_that_wait_together_one_is_stored_and_the_other_parked(
    store: Store, clock: Clock
) -> None:
    await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    now = await store.now()
    offered = [refreshed(grant, token_set(n, expire_time=None), now) for n in (2, 3)]
    commits = await asyncio.gather(*map(store.commit_refresh, offered))
    assert sorted(commit.name for commit in commits) == ["LOST", "STORED"]
    [again] = await claim(store)
    assert again.token_set == offered[commits.index(Commit.STORED)].token_set
    assert await store.use_candidate(again)
    [last] = await claim(store)
    assert last.token_set == offered[commits.index(Commit.LOST)].token_set


async def test_a_refresh_that_cannot_be_stored_fails_alone(store: Store, clock: Clock) -> None:
    for user in range(5):
        await connected(store, user=str(user))
    clock.offset += DUE
    now = await store.now()
    offered = [refreshed(grant, token_set(n, expire_time=None), now) for n, grant in enumerate(await claim(store))]
    offered[2] = dataclasses.replace(offered[2], profile_id=None)  # type: ignore[arg-type]
    results = await asyncio.gather(*map(store.commit_refresh, offered), return_exceptions=True)
    assert [result is Commit.STORED for result in results] == [True, True, False, True, True]


async def test_a_released_grant_waits_and_counts(store: Store, clock: Clock) -> None:
    await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    later = await store.now() + MINUTE
    retry = Retry(GrantState.READY, later, spent=False)
    assert await store.release(grant, retry, error="503")
    assert await claim(store) == []
    clock.offset += timedelta(seconds=61)
    [again] = await claim(store)
    assert (again.sends, again.attempts) == (0, 1)
    assert not await store.release(grant, retry, error="late")


async def test_a_refresh_of_unknown_outcome_remembers_that_its_token_may_be_spent(store: Store, clock: Clock) -> None:
    await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    retry = Retry(GrantState.UNKNOWN, await store.now(), spent=True)
    assert await store.release(grant, retry, error="reset", reply=b'{"access_token": "canary"')
    [again] = await claim(store)
    assert (again.found, again.sends) == (GrantState.UNKNOWN, 1)


async def test_who_finds_a_claim_that_was_never_ended_counts_no_further_send(store: Store, clock: Clock) -> None:
    """Two who die in turn, one before and one after the lease ran out, leave the one retry that a lost answer has."""
    await connected(store)
    clock.offset += DUE
    await claim(store, owner="dies")
    clock.offset += timedelta(seconds=61)
    [found] = await claim(store, owner="dies as well")
    assert (found.found, found.sends) == (GrantState.SENT, 1)
    clock.offset += timedelta(seconds=61)
    [again] = await claim(store)
    assert (again.found, again.sends) == (GrantState.SENT, 1)
    assert await store.release(again, Retry(GrantState.UNKNOWN, await store.now(), spent=False), error="")
    [retry] = await claim(store)
    assert (retry.found, retry.sends) == (GrantState.UNKNOWN, 1)


async def test_a_dead_grant_expires_its_account_with_the_reason_and_is_not_claimed_again(
    store: Store, clock: Clock, engine: Engine
) -> None:
    account = await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    assert await store.expire_grant(grant, StatusReason.REFRESH_REJECTED, error="400 invalid_request")
    after = await store.account(account.id)
    assert after is not None
    assert (after.status, after.status_reason) == (Status.EXPIRED, StatusReason.REFRESH_REJECTED)
    assert after.status_time > account.status_time
    clock.offset += timedelta(days=30)
    assert await claim(store) == []
    assert [kind for _, kind, _ in events(engine, account.id)] == ["connected", "expired"]


async def test_who_lost_the_race_cannot_expire_the_account(store: Store, clock: Clock) -> None:
    account = await connected(store)
    clock.offset += DUE
    [loser] = await claim(store, owner="a")
    clock.offset += timedelta(seconds=61)
    [winner] = await claim(store, owner="b")
    now = await store.now()
    await store.commit_refresh(refreshed(winner, token_set(2, expire_time=now + timedelta(hours=2)), now + MINUTE))
    assert not await store.expire_grant(loser, StatusReason.REFRESH_REJECTED, error="")
    after = await store.account(account.id)
    assert after is not None and after.status is Status.ACTIVE


async def test_a_grant_without_refresh_token_expires_when_its_access_token_ends(store: Store, clock: Clock) -> None:
    life = timedelta(days=60)
    account = await connected(store, life=life, due=life, refresh_token=False)
    assert await store.expire_ended("twitter", limit=10) == 0
    clock.offset += life + MINUTE
    assert await claim(store) == []
    assert await store.expire_ended("twitter", limit=10) == 1
    after = await store.account(account.id)
    assert after is not None and after.status_reason is StatusReason.NOT_REFRESHABLE


async def test_the_leases_of_a_dead_process_can_be_freed(store: Store, clock: Clock) -> None:
    await connected(store)
    clock.offset += DUE
    await claim(store)
    assert await claim(store) == []
    assert await store.free_dead_leases() == 1
    [again] = await claim(store)
    assert again.found is GrantState.SENT


async def test_a_broken_seal_holds_up_no_other_grant(store: Store, clock: Clock, engine: Engine) -> None:
    broken = await connected(store, user="1", due=timedelta(minutes=1))
    await connected(store, user="2", due=timedelta(minutes=2))
    sql(engine, "UPDATE grants SET token_set = ? WHERE id = ?", [b"\x00\xff", broken.grant_id])
    clock.offset += timedelta(minutes=3)
    [grant] = await claim(store)
    assert grant.id != broken.grant_id
    assert await claim(store) == []
    after = await store.account(broken.id)
    assert after is not None and after.status is Status.ACTIVE


async def test_what_does_not_open_can_be_revoked_replaced_and_swept_all_the_same(
    store: Store, clock: Clock, engine: Engine
) -> None:
    def damage(table: str, column: str, row_id: str) -> None:
        sql(engine, f"UPDATE {table} SET {column} = ? WHERE id = ?", [b"\x00\xff", row_id])

    one, two = await connected(store, user="1"), await connected(store, user="2")
    for account in (one, two):
        damage("grants", "token_set", account.grant_id)
    assert await revoke(store, one.id) is PlatformRevocation.NOTHING_TO_REVOKE
    assert (await connected(store, user="2")).id == two.id

    await revoke(store, (await connected(store, user="3")).id)
    await revoke(store, (await connected(store, user="4")).id)
    [first, _] = await store.claim_revocations("twitter", lease=MINUTE, limit=10)
    damage("revocations", "tokens", first.id)
    clock.offset += MINUTE * 2
    assert len(await store.claim_revocations("twitter", lease=MINUTE, limit=10)) == 1

    request = await begun(store)
    await store.start_exchange(request.id, expected=Phase.BEGUN)
    await store.keep_exchanged(request, token_set(expire_time=None))
    damage("authorization_requests", "exchanged", request.id)
    clock.offset += MINUTE * 2
    assert await store.sweep_requests(limit=10) == 1
    failed = await store.request(request.id)
    assert failed is not None and failed.phase is Phase.FAILED


async def test_a_token_set_moved_to_another_row_does_not_open(store: Store, clock: Clock, engine: Engine) -> None:
    one = await connected(store, user="1")
    two = await connected(store, user="2")
    sql(
        engine,
        "UPDATE grants SET token_set = (SELECT token_set FROM grants WHERE id = ?) WHERE id = ?",
        [one.grant_id, two.grant_id],
    )
    clock.offset += DUE
    assert [grant.id for grant in await claim(store)] == [one.grant_id]


async def test_scopes_that_a_refresh_changes_are_shown(store: Store, clock: Clock, engine: Engine) -> None:
    account = await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    now = await store.now()
    fewer = token_set(2, expire_time=now + timedelta(hours=2), scopes=("users.read",))
    await store.commit_refresh(refreshed(grant, fewer, now + MINUTE))
    after = await store.account(account.id)
    assert after is not None
    assert after.scopes == ("users.read",)
    assert set(after.missing_scopes) == set(SCOPES) - {"users.read"}
    assert events(engine, account.id)[-1][1] == "scopes_changed"
