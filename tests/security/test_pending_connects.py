"""A flood of BeginConnect (row G5) fills no table: what is begun and not ended is capped, by caller and by profile."""

import dataclasses
from datetime import timedelta

import pytest

from server.accounts.callers import Limits
from server.accounts.connect import PENDING_OF_PROFILE
from server.accounts.errors import RateLimited
from server.accounts.flow import AuthorizationResponse
from server.accounts.model import Secret
from server.storage.engine import Engine
from tests.accounts.conftest import House
from tests.accounts.script import CALLER
from tests.storage.rows import sql

FIVE = dataclasses.replace(CALLER, limits=Limits(pending_connects=5))


async def limit_met(house: House, **fields: object) -> str:
    with pytest.raises(RateLimited) as caught:
        await house.begin(FIVE, **fields)
    assert caught.value.retry_after == timedelta(minutes=1)
    return caught.value.facts["limit"]


def requests_in(engine: Engine) -> int:
    return int(sql(engine, "SELECT count(*) FROM authorization_requests").fetchone()[0])


@pytest.mark.parametrize("times", [50, pytest.param(100_000, marks=pytest.mark.long)])
async def test_g5_a_caller_that_begins_without_end_is_stopped_at_its_cap_and_others_are_not(
    house: House, engine: Engine, times: int
) -> None:
    for number in range(5):
        await house.begin(FIVE, profile_id=f"p{number}")
    for number in range(times):
        assert await limit_met(house, profile_id=f"q{number}") == "pending_connects"
    assert requests_in(engine) == 5
    assert sql(engine, "SELECT count(*) FROM events").fetchone()[0] == 5
    await house.begin(CALLER, profile_id="p1")


async def test_g5_connects_that_end_make_room_however_they_end(house: House) -> None:
    states = [await house.begin(FIVE, profile_id=f"p{number}") for number in range(5)]
    await house.complete(await house.come_back(states[0]), profile_id="p0")
    await house.begin(FIVE)
    await house.callback.answer("twitter", AuthorizationResponse(Secret(states[1]), error="access_denied"))
    await house.begin(FIVE)
    assert await limit_met(house) == "pending_connects"
    house.clock.offset += timedelta(minutes=10)
    await house.begin(FIVE)


async def test_g5_connects_of_one_profile_leave_room_for_those_of_others(house: House) -> None:
    for _ in range(PENDING_OF_PROFILE):
        await house.begin(profile_id="busy")
    with pytest.raises(RateLimited) as caught:
        await house.begin(profile_id="busy")
    assert caught.value.facts["limit"] == "pending_connects_of_profile"
    await house.begin(profile_id="another")
