"""Those who wait for a platform: how many may, and what they cost while they do."""

import asyncio
from contextlib import ExitStack
from datetime import timedelta

import pytest

from server.accounts.connect import hashed
from server.accounts.errors import ConnectRefused, RateLimited, Reason
from server.accounts.flow import AuthorizationRequest, Failure, Phase
from server.accounts.gate import MOST_OF_ONE, MOST_WAITING
from server.accounts.model import Secret
from tests.accounts.conftest import House
from tests.accounts.script import CALLER, OPERATOR


async def test_those_who_wait_for_one_exchange_look_as_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds that look each for themselves would leave the database no time for anybody else."""
    code = await house.come_back(await house.begin())
    request = await house.store.request_by_completion_code(hashed(Secret(code)))
    assert request is not None and await house.store.start_exchange(request.id, expected=Phase.ANSWERED)
    looks, look, looked_twice = 0, house.store.request, asyncio.Event()

    async def counted(connect_id: str) -> AuthorizationRequest | None:
        nonlocal looks
        looks += 1
        if looks == 2:
            looked_twice.set()
        return await look(connect_id)

    monkeypatch.setattr(house.store, "request", counted)
    waiting = [asyncio.create_task(house.complete(code)) for _ in range(50)]
    await asyncio.wait_for(looked_twice.wait(), 10)
    waiting.pop().cancel()
    await house.store.fail_request(request.id, Failure(Reason.USER_DENIED, "no", {}), expected=[Phase.EXCHANGING])
    for each in waiting:
        with pytest.raises(ConnectRefused) as caught:
            await each
        assert caught.value.reason is Reason.USER_DENIED
    assert 2 <= looks < 50


async def test_when_too_many_wait_for_a_platform_the_next_is_told_to_come_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await house.connect()
    code = await house.come_back(await house.begin(profile_id="p2"))
    calls = len(house.platform.calls)
    with ExitStack() as crowd:
        for number in range(MOST_WAITING):
            crowd.enter_context(house.gate.waiting("twitter", f"caller {number % 2}"))
        with pytest.raises(RateLimited) as caught:
            await house.complete(code, profile_id="p2")
        assert caught.value.retry_after == timedelta(seconds=1) and caught.value.facts == {"limit": "waiting"}
        house.clock.offset += timedelta(minutes=2)
        assert await house.fresh.refresh(CALLER, account.id, None) == (account, False), "its access token still lives"
        house.clock.offset += timedelta(hours=2)
        with pytest.raises(RateLimited):
            await house.fresh.refresh(CALLER, account.id, None)
        with pytest.raises(ConnectRefused) as burnt:
            await house.complete(code, profile_id="another")
        assert burnt.value.reason is Reason.CONNECT_MISMATCH, "whoever should not have the code burns it all the same"
    assert len(house.platform.calls) == calls
    _, refreshed = await house.fresh.refresh(CALLER, account.id, None)
    assert refreshed


async def test_however_many_calls_of_one_caller_wait_those_of_another_find_a_place(house: House) -> None:
    account = await house.connect()
    house.clock.offset += timedelta(hours=2)
    with ExitStack() as crowd:
        for _ in range(MOST_OF_ONE):
            crowd.enter_context(house.gate.waiting("twitter", CALLER.name))
        with pytest.raises(RateLimited) as caught:
            await house.fresh.refresh(CALLER, account.id, None)
        assert caught.value.facts == {"limit": "waiting"}
        _, refreshed = await house.fresh.refresh(OPERATOR, account.id, None)
        assert refreshed
    house.clock.offset += timedelta(hours=2)
    _, refreshed = await house.fresh.refresh(CALLER, account.id, None)
    assert refreshed, "whose calls have ended has its places again"


async def test_who_shares_a_refresh_is_not_refused_for_the_crowd_of_whoever_asked_first(house: House) -> None:
    account = await house.connect()
    house.clock.offset += timedelta(hours=2)
    with ExitStack() as crowd:
        for _ in range(MOST_OF_ONE):
            crowd.enter_context(house.gate.waiting("twitter", CALLER.name))
        refused, served = await asyncio.gather(
            *(house.fresh.refresh(caller, account.id, None) for caller in (CALLER, OPERATOR)), return_exceptions=True
        )
    assert isinstance(refused, RateLimited)
    assert not isinstance(served, BaseException) and served[1]
