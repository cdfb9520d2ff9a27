"""The contract of every store: what each method promises, proved on the real database."""

import asyncio
import dataclasses
import json
from datetime import timedelta
from typing import Any

import pytest

from server.accounts.flow import Failure, Phase
from server.accounts.grants import Commit, GrantState, Retry
from server.accounts.model import AccountFilter, Identity, PlatformRevocation, Secret, Status, StatusReason
from server.storage import revocations
from server.storage.clock import Clock
from server.storage.engine import Engine
from server.storage.store import Store
from tests.storage.make import SCOPES, begun, claim, connected, new_grant, refreshed, token_set

MINUTE = timedelta(minutes=1)
DUE = timedelta(minutes=97)


def sql(engine: Engine, text: str, parameters: list[object] | None = None) -> Any:
    """A cursor, whatever the database calls its parameters."""
    return engine.database.execute_sql(text.replace("?", engine.database.param), parameters or [])


def events(engine: Engine, account_id: str | None = None) -> list[tuple[int | None, str, dict[str, object]]]:
    rows = sql(engine, "SELECT number, kind, facts, account_id FROM events ORDER BY id").fetchall()
    return [(row[0], row[1], json.loads(row[2])) for row in rows if account_id in (None, row[3])]


# --- reading


async def test_an_account_reads_back_as_it_was_connected(store: Store) -> None:
    account = await connected(store, scopes=("users.read", "tweet.read"))
    again = await store.account(account.id)
    assert again == account
    assert (account.status, account.status_reason) == (Status.ACTIVE, StatusReason.NONE)
    assert (account.handle, account.platform_user_id, account.profile_id) == ("ada", "1", "p1")
    assert account.scopes == ("tweet.read", "users.read")
    assert account.missing_scopes == ("offline.access",)
    assert account.access_token_expire_time is not None
    assert account.last_refresh_time is None


async def test_a_missing_account_is_none(store: Store) -> None:
    assert await store.account("0193b0a0-0000-7000-8000-000000000000") is None


async def test_pages_are_in_the_order_of_ids_and_hold_every_account_once(store: Store) -> None:
    made = [await connected(store, user=str(n)) for n in range(7)]
    seen: list[str] = []
    after = ""
    for expected_more in (True, True, False):
        page = await store.list_accounts(AccountFilter(profile_id="p1"), after=after, size=3)
        assert page.more is expected_more
        seen += [account.id for account in page.accounts]
        after = seen[-1]
    assert seen == sorted(account.id for account in made)


async def test_a_list_shows_only_what_the_filter_lets_through(store: Store, clock: Clock) -> None:
    first = await connected(store, profile_id="acme/1", user="1")
    await connected(store, profile_id="acme/2", user="2", due=None, life=timedelta(minutes=1), refresh_token=False)
    await connected(store, profile_id="acmeX", user="3")
    await connected(store, profile_id="ACME/3", user="4")
    await connected(store, profile_id="a%me/5", user="5")

    async def listed(which: AccountFilter) -> list[str]:
        return [account.profile_id for account in (await store.list_accounts(which, after="", size=50)).accounts]

    assert await listed(AccountFilter(profile_prefixes=("acme/",))) == ["acme/1", "acme/2"]
    assert await listed(AccountFilter(profile_prefixes=("a%me/",))) == ["a%me/5"]
    assert await listed(AccountFilter(profile_prefixes=("acme/1", "acmeX"))) == ["acme/1", "acmeX"]
    assert await listed(AccountFilter(profile_prefixes=())) == []
    assert await listed(AccountFilter(platforms=frozenset())) == []
    assert await listed(AccountFilter(platforms=frozenset({"linkedin"}))) == []
    await store.revoke_account(first.id, caller="web", supported=True, ends_user_grant=False)
    assert await listed(AccountFilter(statuses=frozenset({Status.REVOKED}))) == ["acme/1"]
    assert len(await listed(AccountFilter(statuses=frozenset({Status.ACTIVE, Status.REVOKED})))) == 5


async def test_who_may_see_nothing_gets_nothing_whoever_listed_before(store: Store) -> None:
    account = await connected(store)
    everything = AccountFilter()
    for nothing in (AccountFilter(profile_prefixes=()), AccountFilter(platforms=frozenset())):
        for which, expected in ((everything, [account.id]), (nothing, []), (everything, [account.id])):
            page = await store.list_accounts(which, after="", size=10)
            assert [each.id for each in page.accounts] == expected


# --- connecting


async def test_a_state_is_answered_once(store: Store) -> None:
    request = await begun(store)
    until = await store.now() + timedelta(seconds=30)

    async def answer(number: int) -> bool:
        return await store.answer_request(
            request.id, code=Secret("code"), completion_code_hash=bytes([number]) * 32, completion_expire_time=until
        )

    assert sorted(await asyncio.gather(*map(answer, range(20)))) == [False] * 19 + [True]


async def test_a_request_that_has_expired_is_not_answered(store: Store, clock: Clock) -> None:
    request = await begun(store)
    clock.offset += timedelta(minutes=10)
    until = await store.now() + timedelta(seconds=30)
    assert not await store.answer_request(
        request.id, code=Secret("code"), completion_code_hash=b"h" * 32, completion_expire_time=until
    )


async def test_an_exchange_starts_once_and_the_code_is_gone_from_the_database(store: Store) -> None:
    request = await begun(store)
    until = await store.now() + timedelta(seconds=30)
    await store.answer_request(
        request.id, code=Secret("code-canary"), completion_code_hash=b"h" * 32, completion_expire_time=until
    )
    parked = await store.request_by_completion_code(b"h" * 32)
    assert parked is not None and parked.code == Secret("code-canary")
    starts = await asyncio.gather(*(store.start_exchange(request.id, expected=Phase.ANSWERED) for _ in range(20)))
    assert starts.count(True) == 1
    after = await store.request(request.id)
    assert after is not None and after.code is None and after.phase is Phase.EXCHANGING


async def test_connecting_again_renews_the_account_and_keeps_its_id_and_place(store: Store, clock: Clock) -> None:
    first = await connected(store, user="1")
    await connected(store, user="2")
    clock.offset += MINUTE
    again = await connected(store, user="1", handle="ada2")
    assert again.id == first.id
    assert again.handle == "ada2"
    assert again.create_time == first.create_time
    assert again.status_time == first.status_time
    page = await store.list_accounts(AccountFilter(profile_id="p1"), after="", size=10)
    assert page.accounts[0].id == first.id


async def test_the_same_user_in_two_profiles_is_two_accounts(store: Store) -> None:
    assert (await connected(store, profile_id="p1")).id != (await connected(store, profile_id="p2")).id


async def test_a_failed_request_keeps_its_reason_and_sends_kept_tokens_to_the_outbox(store: Store) -> None:
    request = await begun(store)
    await store.start_exchange(request.id, expected=Phase.BEGUN)
    await store.keep_exchanged(request, token_set(expire_time=None))
    failure = Failure("IDENTITY_UNAVAILABLE", "who?", {"platform": "twitter"})
    assert not await store.fail_request(request.id, failure, expected=[Phase.BEGUN])
    assert await store.fail_request(request.id, failure, expected=[Phase.EXCHANGING])
    failed = await store.request(request.id)
    assert failed is not None and failed.failure == failure
    [entry] = await store.claim_revocations("twitter", lease=MINUTE, limit=10)
    assert entry.tokens == (Secret("rt-canary-1"), Secret("at-canary-1"))


async def test_an_exchange_that_never_ended_is_given_up_and_its_tokens_are_revoked(store: Store, clock: Clock) -> None:
    request = await begun(store)
    await store.start_exchange(request.id, expected=Phase.BEGUN)
    await store.keep_exchanged(request, token_set(expire_time=None))
    await store.sweep_requests(limit=10)
    still = await store.request(request.id)
    assert still is not None and still.phase is Phase.EXCHANGING
    clock.offset += timedelta(seconds=60)
    await store.sweep_requests(limit=10)
    failed = await store.request(request.id)
    assert failed is not None and failed.failure is not None and failed.failure.reason == "CONNECT_FAILED"
    assert await store.complete_request(request, await new_grant(store)) is None
    assert len(await store.claim_revocations("twitter", lease=MINUTE, limit=10)) == 1


async def test_ended_requests_are_forgotten_ten_minutes_later(store: Store, clock: Clock) -> None:
    request = await begun(store)
    await store.fail_request(request.id, Failure("USER_DENIED", "no"), expected=[Phase.BEGUN])
    clock.offset += timedelta(minutes=9, seconds=59)
    await store.sweep_requests(limit=10)
    assert await store.request(request.id) is not None
    clock.offset += timedelta(seconds=2)
    await store.sweep_requests(limit=10)
    assert await store.request(request.id) is None


# --- refreshing


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


# --- identities


async def test_a_renamed_handle_is_stored_once(store: Store, clock: Clock, engine: Engine) -> None:
    account = await connected(store, life=None)
    clock.offset += timedelta(days=31)
    [read] = await store.claim_identity_due("twitter", retry=MINUTE, limit=5)
    assert await store.claim_identity_due("twitter", retry=MINUTE, limit=5) == []
    renamed = Identity("1", "countess", "Ada Lovelace", "https://img.test/ada.png")
    due = await store.now() + timedelta(days=30)
    assert await store.update_identity(read.grant_id, renamed, due_time=due)
    assert not await store.update_identity(read.grant_id, renamed, due_time=due)
    after = await store.account(account.id)
    assert after is not None and after.handle == "countess"
    kinds = [kind for _, kind, _ in events(engine, account.id)]
    assert kinds == ["connected", "identity_changed"]


async def test_another_users_identity_changes_nothing(store: Store) -> None:
    account = await connected(store)
    assert not await store.update_identity(account.grant_id, Identity("999", "mallory"), due_time=await store.now())
    after = await store.account(account.id)
    assert after is not None and after.handle == "ada"


async def test_a_refused_access_token_makes_its_grant_due_at_once(store: Store) -> None:
    account = await connected(store)
    await store.refresh_now(account.grant_id, 2)
    assert await claim(store) == []
    await store.refresh_now(account.grant_id, 1)
    assert len(await claim(store)) == 1


# --- revoking


async def revoke(store: Store, account_id: str, **rules: bool) -> PlatformRevocation:
    supported, ends = rules.get("supported", True), rules.get("ends_user_grant", False)
    account = await store.revoke_account(account_id, caller="web", supported=supported, ends_user_grant=ends)
    assert (account.status, account.status_reason) == (Status.REVOKED, StatusReason.REVOKED_BY_CALLER)
    assert account.access_token_expire_time is None
    return account.platform_revocation


async def finish(store: Store, expected: int) -> None:
    entries = await store.claim_revocations("twitter", lease=MINUTE, limit=10)
    assert len(entries) == expected
    for entry in entries:
        await store.finish_revocation(entry)


async def outcome(store: Store, account_id: str) -> PlatformRevocation:
    account = await store.account(account_id)
    assert account is not None
    return account.platform_revocation


async def test_a_revoked_account_is_pending_until_the_platform_confirms(store: Store, engine: Engine) -> None:
    account = await connected(store)
    assert await revoke(store, account.id) is PlatformRevocation.PENDING
    assert await revoke(store, account.id) is PlatformRevocation.PENDING
    await finish(store, 1)
    assert await outcome(store, account.id) is PlatformRevocation.CONFIRMED
    for table in ("grants", "revocations"):
        assert sql(engine, f"SELECT count(*) FROM {table}").fetchone()[0] == 0
    assert [kind for _, kind, _ in events(engine, account.id)] == [
        "connected",
        "revoked",
        "platform_revocation_confirmed",
    ]


async def test_a_refresh_in_flight_does_not_bring_a_revoked_account_back(store: Store, clock: Clock) -> None:
    account = await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    await revoke(store, account.id)
    await finish(store, 1)
    assert await outcome(store, account.id) is PlatformRevocation.PENDING
    now = await store.now()
    assert await store.commit_refresh(refreshed(grant, token_set(2, expire_time=now), now)) is Commit.REVOKING
    [entry] = await store.claim_revocations("twitter", lease=MINUTE, limit=10)
    assert entry.tokens[0] == Secret("rt-canary-2")
    await store.finish_revocation(entry)
    assert await outcome(store, account.id) is PlatformRevocation.CONFIRMED


async def test_a_pair_that_comes_after_the_stub_was_swept_is_revoked_too(store: Store, clock: Clock) -> None:
    account = await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    await revoke(store, account.id)
    await finish(store, 1)
    clock.offset += timedelta(seconds=61)
    await store.sweep_requests(limit=10)
    now = await store.now()
    assert await store.commit_refresh(refreshed(grant, token_set(2, expire_time=now), now)) is Commit.REVOKING
    [entry] = await store.claim_revocations("twitter", lease=MINUTE, limit=10)
    assert entry.tokens[0] == Secret("rt-canary-2")


async def test_a_parked_candidate_is_revoked_with_its_account(store: Store, clock: Clock) -> None:
    account = await connected(store)
    clock.offset += DUE
    [first] = await claim(store, owner="a")
    clock.offset += timedelta(seconds=61)
    [second] = await claim(store, owner="b")
    now = await store.now()
    later = now + timedelta(hours=1)
    await store.commit_refresh(refreshed(second, token_set(2, expire_time=now), later))
    await store.commit_refresh(refreshed(first, token_set(3, expire_time=now), later))
    await revoke(store, account.id)
    entries = await store.claim_revocations("twitter", lease=MINUTE, limit=10)
    assert {entry.tokens[0].reveal() for entry in entries} == {"rt-canary-2", "rt-canary-3"}


@pytest.mark.parametrize("ending", ["release", "expire", "dies"])
async def test_a_refresh_that_brings_nothing_does_not_leave_a_revoked_account_pending(
    store: Store, clock: Clock, ending: str
) -> None:
    account = await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    await revoke(store, account.id)
    await finish(store, 1)
    if ending == "release":
        await store.release(grant, Retry(GrantState.READY, await store.now(), spent=False), error="")
    elif ending == "expire":
        await store.expire_grant(grant, StatusReason.REFRESH_REJECTED, error="")
    else:
        clock.offset += timedelta(seconds=61)
        await store.sweep_requests(limit=10)
    assert await outcome(store, account.id) is PlatformRevocation.CONFIRMED
    after = await store.account(account.id)
    assert after is not None and after.status is Status.REVOKED


async def test_the_dead_have_nothing_to_revoke_but_a_lost_outcome_may_have(store: Store, clock: Clock) -> None:
    for user, reason, expected in (
        ("1", StatusReason.REFRESH_REJECTED, PlatformRevocation.NOTHING_TO_REVOKE),
        ("2", StatusReason.REFRESH_OUTCOME_LOST, PlatformRevocation.PENDING),
    ):
        account = await connected(store, user=user)
        clock.offset += DUE
        [grant] = await claim(store)
        await store.expire_grant(grant, reason, error="")
        assert await revoke(store, account.id) is expected


async def test_a_platform_without_revocation_leaves_nothing_here(store: Store, engine: Engine) -> None:
    account = await connected(store)
    assert await revoke(store, account.id, supported=False) is PlatformRevocation.NOT_SUPPORTED
    for table in ("grants", "revocations"):
        assert sql(engine, f"SELECT count(*) FROM {table}").fetchone()[0] == 0


async def test_where_a_revocation_ends_the_users_whole_grant_a_sibling_is_spared(store: Store) -> None:
    one = await connected(store, profile_id="p1")
    two = await connected(store, profile_id="p2")
    assert await revoke(store, one.id, ends_user_grant=True) is PlatformRevocation.KEPT_FOR_SIBLING
    assert await store.claim_revocations("twitter", lease=MINUTE, limit=10) == []
    assert await revoke(store, two.id, ends_user_grant=True) is PlatformRevocation.PENDING


async def test_a_superseded_pair_is_held_until_its_account_is_revoked(store: Store) -> None:
    account = await connected(store)
    await connected(store)
    assert await store.claim_revocations("twitter", lease=MINUTE, limit=10) == []
    await revoke(store, account.id)
    await finish(store, 2)
    assert await outcome(store, account.id) is PlatformRevocation.CONFIRMED


async def test_a_pair_given_up_after_a_lost_outcome_is_revoked_though_its_account_was_connected_again(
    store: Store, clock: Clock
) -> None:
    account = await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    await store.expire_grant(grant, StatusReason.REFRESH_OUTCOME_LOST, error="no answer came, twice")
    await connected(store)
    assert await store.claim_revocations("twitter", lease=MINUTE, limit=10) == []
    await revoke(store, account.id)
    await finish(store, 2)


async def test_a_pair_that_the_platform_itself_calls_dead_is_not_kept_when_its_account_is_connected_again(
    store: Store, clock: Clock
) -> None:
    account = await connected(store)
    clock.offset += DUE
    [grant] = await claim(store)
    await store.expire_grant(grant, StatusReason.REFRESH_REJECTED, error="")
    await connected(store)
    await revoke(store, account.id)
    await finish(store, 1)


async def test_a_revocation_that_failed_is_due_again_later(store: Store, clock: Clock) -> None:
    account = await connected(store)
    await revoke(store, account.id)
    [entry] = await store.claim_revocations("twitter", lease=MINUTE, limit=10, account_id=account.id)
    await store.retry_revocation(entry, due_time=await store.now() + MINUTE, error="503")
    assert await store.claim_revocations("twitter", lease=MINUTE, limit=10) == []
    clock.offset += timedelta(seconds=61)
    [again] = await store.claim_revocations("twitter", lease=MINUTE, limit=10)
    assert again.attempts == 1
    assert again.tokens == entry.tokens


async def tried_in_vain(store: Store, clock: Clock, times: int) -> list[bool]:
    """Whether each of so many tries, half a day apart, was the last one."""
    given_up = []
    for _ in range(times):
        clock.offset += timedelta(hours=12)
        [entry] = await store.claim_revocations("twitter", lease=MINUTE, limit=10)
        given_up.append(await store.retry_revocation(entry, due_time=await store.now(), error="503"))
    return given_up


async def test_a_revocation_that_no_platform_confirms_in_a_month_is_given_up_and_its_account_stays_revoked(
    store: Store, clock: Clock, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "GIVEN_UP_TRIES", 10)
    account = await connected(store)
    await revoke(store, account.id)
    assert await tried_in_vain(store, clock, 60) == [*[False] * 59, True]
    assert await outcome(store, account.id) is PlatformRevocation.GIVEN_UP
    after = await store.account(account.id)
    assert after is not None and after.status is Status.REVOKED
    assert sql(engine, "SELECT count(*) FROM revocations").fetchone()[0] == 0
    [event] = [each for each in await store.events_of(account.id, limit=10) if "given_up" in each.kind]
    assert (event.kind, event.facts) == ("platform_revocation_given_up", {"attempt": 60, "error": "503"})
    assert (await revoke(store, account.id)) is PlatformRevocation.GIVEN_UP


async def test_a_revocation_that_was_hardly_tried_is_not_given_up_however_old_it_is(store: Store, clock: Clock) -> None:
    account = await connected(store)
    await revoke(store, account.id)
    clock.offset += timedelta(days=365)
    assert await tried_in_vain(store, clock, 99) == [False] * 99
    assert await tried_in_vain(store, clock, 1) == [True]


async def test_what_one_of_two_revocations_confirms_does_not_hide_that_the_other_was_given_up(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "GIVEN_UP_TRIES", 1)
    account = await connected(store)
    await connected(store)  # its older pair is held back
    clock.offset += timedelta(days=60)
    await revoke(store, account.id)
    for entry in await store.claim_revocations("twitter", lease=MINUTE, limit=10):
        assert not await store.retry_revocation(entry, due_time=await store.now(), error="503"), "asked for just now"
    clock.offset += timedelta(days=31)
    first, second = await store.claim_revocations("twitter", lease=MINUTE, limit=10)
    assert await store.retry_revocation(first, due_time=await store.now(), error="503")
    await store.finish_revocation(second)
    assert await outcome(store, account.id) is PlatformRevocation.GIVEN_UP


async def test_a_revoked_account_can_be_connected_again_under_its_id(store: Store) -> None:
    account = await connected(store)
    await revoke(store, account.id)
    again = await connected(store)
    assert (again.id, again.status, again.platform_revocation) == (account.id, Status.ACTIVE, PlatformRevocation.NONE)


async def test_a_reconnect_holds_back_what_the_platform_has_not_confirmed(store: Store, clock: Clock) -> None:
    account = await connected(store)
    await revoke(store, account.id)
    await connected(store)
    clock.offset += MINUTE
    assert await store.claim_revocations("twitter", lease=MINUTE, limit=10) == []
    await revoke(store, account.id)
    await finish(store, 2)
    assert await outcome(store, account.id) is PlatformRevocation.CONFIRMED


async def test_a_pair_that_comes_for_a_dead_grant_is_revoked(store: Store, clock: Clock) -> None:
    await connected(store)
    clock.offset += DUE
    [first] = await claim(store, owner="a")
    clock.offset += timedelta(seconds=61)
    [second] = await claim(store, owner="b")
    assert await store.expire_grant(second, StatusReason.REFRESH_REJECTED, error="")
    now = await store.now()
    assert await store.commit_refresh(refreshed(first, token_set(2, expire_time=now), now)) is Commit.LOST
    [entry] = await store.claim_revocations("twitter", lease=MINUTE, limit=10)
    assert entry.tokens[0] == Secret("rt-canary-2")


# --- events


async def test_changes_of_accounts_are_numbered_in_the_order_of_their_commits(store: Store, engine: Engine) -> None:
    accounts = await asyncio.gather(*(connected(store, user=str(n)) for n in range(20)))
    await asyncio.gather(
        *(store.revoke_account(a.id, caller="web", supported=True, ends_user_grant=False) for a in accounts)
    )
    numbers = [number for number, *_ in events(engine) if number is not None]
    assert sorted(numbers) == list(range(1, 41))
    assert all(number is None for number, kind, _ in events(engine) if kind == "connect_begun")


async def test_a_write_that_fails_leaves_nothing_and_harms_no_other_in_its_group(store: Store, engine: Engine) -> None:
    good = [store.revoke_account((await connected(store, user=str(n))).id, caller="web", supported=True,
                                 ends_user_grant=False) for n in range(3)]  # fmt: skip
    bad = store.revoke_account("missing", caller="web", supported=True, ends_user_grant=False)
    results = await asyncio.gather(*good[:1], bad, *good[1:], return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [False, True, False, False]
