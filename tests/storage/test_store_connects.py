"""The contract of every store: a connect, from its state to its account."""

import asyncio
from datetime import timedelta

from server.accounts.flow import Failure, Phase
from server.accounts.model import AccountFilter, Secret
from server.storage.clock import Clock
from server.storage.store import Store
from tests.storage.make import begun, connected, new_grant, token_set

MINUTE = timedelta(minutes=1)


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
