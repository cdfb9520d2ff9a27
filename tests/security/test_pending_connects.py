"""A flood of BeginConnect (row G5) fills no table: what is begun and not ended is capped, by caller and by profile."""

import asyncio
import dataclasses
import time
from datetime import timedelta

import pytest
from peewee import chunked

from server.accounts.callers import Limits
from server.accounts.connect import PENDING_OF_PROFILE
from server.accounts.errors import RateLimited
from server.accounts.flow import AuthorizationResponse
from server.accounts.model import Secret
from server.app import SWEEP_LIMIT
from server.storage.engine import Engine
from server.storage.schema import RequestRow
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


def multiply(engine: Engine, times: int) -> None:
    """So many copies of the one request that there is."""
    columns = [column.name for column in engine.database.get_columns("authorization_requests")]
    [row] = sql(engine, f"SELECT {', '.join(columns)} FROM authorization_requests").fetchall()
    copied = dict(zip(columns, row, strict=True))
    copies = ({**copied, "id": f"copy-{number}", "state_hash": str(number).encode()} for number in range(times))
    for some in chunked(copies, 500):
        RequestRow.insert_many(some).execute(engine.database)


@pytest.mark.alone
async def test_g5_thousands_of_connects_that_ended_are_forgotten_and_hold_up_no_write_for_long(
    house: House, engine: Engine
) -> None:
    await house.begin()
    multiply(engine, 10 * SWEEP_LIMIT)
    house.clock.offset += timedelta(hours=1)

    async def sweep() -> None:
        while await house.store.sweep_requests(limit=SWEEP_LIMIT):
            pass

    sweeping, took = asyncio.create_task(sweep()), []
    for _ in range(1_000):
        began = time.perf_counter()
        await engine.write(lambda database: database.execute_sql("UPDATE counters SET value = value"))
        took.append(time.perf_counter() - began)
        if sweeping.done():
            break
    await sweeping
    assert requests_in(engine) == 0
    assert sorted(took)[len(took) * 9 // 10] < 0.1, "however busy the machine is at one moment"


async def test_g5_connects_of_one_profile_leave_room_for_those_of_others(house: House) -> None:
    for _ in range(PENDING_OF_PROFILE):
        await house.begin(profile_id="busy")
    with pytest.raises(RateLimited) as caught:
        await house.begin(profile_id="busy")
    assert caught.value.facts["limit"] == "pending_connects_of_profile"
    await house.begin(profile_id="another")
