"""The contract of every store: what is revoked, and what the outbox still owes the platform."""

from datetime import timedelta

import pytest

from server.accounts.grants import Commit, GrantState, Retry
from server.accounts.model import PlatformRevocation, Secret, Status, StatusReason
from server.storage import revocations
from server.storage.clock import Clock
from server.storage.engine import Engine
from server.storage.store import Store
from tests.storage.make import claim, connected, refreshed, revoke, token_set
from tests.storage.rows import events, sql

MINUTE = timedelta(minutes=1)
DUE = timedelta(minutes=97)


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
