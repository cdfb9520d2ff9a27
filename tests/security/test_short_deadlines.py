"""Calls that end before their work leave its places taken: short deadlines begin no more than patient calls (G2)."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from server.accounts.errors import RateLimited
from server.accounts.gate import EXCHANGES_OF_ONE, MOST_OF_ONE
from server.accounts.model import Identity
from server.accounts.revoke import OF_CALLS
from tests.accounts.conftest import House
from tests.accounts.script import CALLER

OTHER = replace(CALLER, name="other")
TOO_MANY = 20


def hang(house: House, kind: str) -> asyncio.Event:
    """The platform answers no request of a kind before the event is set."""
    well = asyncio.Event()

    async def until_well(_: str) -> None:
        await well.wait()

    house.platform.before[kind] = until_well
    return well


async def given_up(begin: Callable[[], Awaitable[object]]) -> str:
    """How a call ends that does not wait for the platform."""
    try:
        async with asyncio.timeout(2):
            await begin()
    except (TimeoutError, RateLimited) as error:
        return type(error).__name__
    return "well"


async def test_short_deadlines_begin_no_more_exchanges_than_one_caller_may_have_under_way(house: House) -> None:
    house.callers["other"] = OTHER
    codes = [await house.come_back(await house.begin()) for _ in range(EXCHANGES_OF_ONE + TOO_MANY)]
    honest = await house.come_back(await house.begin(OTHER, profile_id="p2"))
    well = hang(house, "exchange")
    ends = await asyncio.gather(*(given_up(lambda code=code: house.complete(code)) for code in codes))
    assert Counter(ends) == {"TimeoutError": EXCHANGES_OF_ONE, "RateLimited": TOO_MANY}
    assert await given_up(lambda: house.complete(codes[-1])) == "RateLimited", "the work that goes on has the places"
    other = asyncio.create_task(house.complete(honest, OTHER, "p2"))
    await house.platform.until_called("exchange", EXCHANGES_OF_ONE + 1)
    well.set()
    assert len(await other) == 1
    await house.exchanger.drain()
    assert len(await house.complete(codes[-1])) == 1, "nothing was done to a connect that was told to come again"


async def test_short_deadlines_begin_no_more_refreshes_than_one_caller_may_have_waiting(house: House) -> None:
    accounts = [await house.connect(profile_id=f"p{number}") for number in range(MOST_OF_ONE + TOO_MANY)]
    house.clock.offset += timedelta(hours=2)
    well = hang(house, "refresh")
    calls = [lambda account=account: house.fresh.refresh(CALLER, account.id, None) for account in accounts]
    assert Counter(await asyncio.gather(*map(given_up, calls))) == {
        "TimeoutError": MOST_OF_ONE,
        "RateLimited": TOO_MANY,
    }
    assert await given_up(calls[-1]) == "RateLimited", "the work that goes on has the places"
    well.set()
    await house.refresher.settled()
    assert await given_up(calls[-1]) == "well"


async def test_a_deleted_profile_of_many_accounts_sends_a_bounded_number_of_revocations_at_once(house: House) -> None:
    accounts = []
    for number in range(OF_CALLS + TOO_MANY):
        house.platform.answer_next("identify", (Identity(str(number), "ada"),))
        accounts.append(await house.connect())
    well = hang(house, "revoke")
    deleting = asyncio.create_task(house.eraser.delete_profile(CALLER, "p1"))
    await house.platform.until_called("revoke", OF_CALLS)
    await deleting
    assert house.platform.count("revoke") == OF_CALLS, "the outbox has the others"
    well.set()
    await house.revoker.drain()
    await house.revoker.work_off("twitter")
    assert await house.store.claim_revocations("twitter", lease=timedelta(minutes=1), limit=1) == []
