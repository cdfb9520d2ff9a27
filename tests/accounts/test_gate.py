"""The gate of a platform."""

import asyncio
from datetime import timedelta

import pytest

from server.accounts import gate as gate_module
from server.accounts.gate import Gate


class Time:
    """A clock and a sleep that takes no time."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


@pytest.fixture
def time() -> Time:
    return Time()


def test_a_gate_lets_in_as_many_as_its_cap() -> None:
    gate = Gate(2)
    gate.enter()
    assert gate.free == 1
    gate.enter()
    assert gate.free == 0
    gate.leave()
    assert gate.free == 1


def test_a_held_gate_opens_by_itself_and_a_shorter_hold_does_not_shorten_a_longer_one(time: Time) -> None:
    gate = Gate(2, clock=time)
    gate.hold(timedelta(seconds=60), "asked to wait")
    gate.hold(timedelta(seconds=5), "shorter")
    time.seconds += 59
    assert (gate.free, gate.held, gate.opens_in) == (0, "asked to wait", timedelta(seconds=1))
    time.seconds += 1
    assert (gate.free, gate.held, gate.opens_in) == (2, "", timedelta())


def test_a_pause_lasts_until_it_is_ended_and_its_end_ends_every_hold() -> None:
    gate = Gate(8)
    gate.pause("an incident")
    gate.hold(timedelta(hours=1), "asked to wait")
    gate.narrow(1)
    assert (gate.free, gate.held, gate.paused) == (0, "an incident", "an incident")
    gate.resume()
    assert (gate.free, gate.held, gate.paused) == (7, "", "")


def test_a_hold_stops_refreshes_alone_and_one_that_pauses_stops_everything() -> None:
    gate = Gate(8)
    gate.hold(timedelta(minutes=1), "asked to wait")
    assert (gate.held, gate.paused) == ("asked to wait", "")
    gate.hold(timedelta(minutes=5), "it refuses us", pauses=True)
    assert (gate.held, gate.paused) == ("it refuses us", "it refuses us")


async def test_room_comes_in_batches() -> None:
    gate = Gate(8)
    for _ in range(8):
        gate.enter()
    waiting = asyncio.create_task(gate.room())
    for _ in range(4):
        gate.leave()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
    gate.leave()
    assert await waiting == 4, "of eight, one place is kept for requests on demand"


async def test_a_batch_is_no_larger_than_what_the_rate_lets_begin_so_that_a_slow_platform_uses_most_of_the_cap(
    time: Time,
) -> None:
    gate = Gate(64, 40, clock=time, sleep=time.sleep)
    for _ in range(52):
        gate.enter()
    await time.sleep(10)
    assert await asyncio.wait_for(gate.room(), 1) == 4


async def test_requests_that_hang_do_not_keep_the_free_places_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "PATIENCE_SECONDS", 0.05)
    gate = Gate(16)
    for _ in range(7):
        gate.enter()
    assert await asyncio.wait_for(gate.room(), 10) == 7, "less than half of the cap, and all that there is"
    for _ in range(7):
        gate.enter()
    waiting = asyncio.create_task(gate.room())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    gate.leave()
    assert await waiting == 1


async def test_who_waits_for_room_learns_of_a_hold() -> None:
    gate = Gate(2)
    gate.enter(), gate.enter()
    waiting = asyncio.create_task(gate.room())
    await asyncio.sleep(0)
    gate.hold(timedelta(minutes=1), "asked to wait")
    assert await waiting == 0


async def test_a_backlog_is_let_through_evenly_at_the_rate(time: Time) -> None:
    gate = Gate(64, 200, clock=time, sleep=time.sleep)
    begun: list[float] = []
    while time.seconds < 110:
        for _ in range(await gate.room()):
            gate.enter(), gate.leave()
            begun.append(time.seconds)
    assert 1980 <= len(begun) <= 2040
    for start in range(100, 110):
        assert sum(start <= moment < start + 1 for moment in begun) <= 221


async def test_a_slow_rate_lets_one_through_at_a_time(time: Time) -> None:
    gate = Gate(64, 0.5, clock=time, sleep=time.sleep)
    assert await gate.room() == 1
    gate.enter(), gate.leave()
    assert await gate.room() == 1
    assert time.seconds == 102


async def test_requests_on_demand_go_first_and_the_scheduler_makes_up_for_them(time: Time) -> None:
    gate = Gate(64, 200, clock=time, sleep=time.sleep)
    for _ in range(20):
        gate.enter()
    assert gate.free == 0
    for _ in range(20):
        assert await gate.turn()
    assert time.seconds == 100, "on demand, nobody has waited"
    for _ in range(40):
        gate.leave()
    await gate.room()
    assert time.seconds == pytest.approx(100.2), "the scheduler has"


async def test_a_turn_waits_for_a_place_within_the_cap() -> None:
    gate = Gate(2)
    gate.enter(), gate.enter()
    waiting = asyncio.create_task(gate.turn())
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.leave()
    assert await waiting and gate.in_flight == 2


async def test_a_turn_that_a_hold_ended_is_none() -> None:
    gate = Gate(1)
    gate.enter()
    waiting = asyncio.create_task(gate.turn())
    await asyncio.sleep(0)
    gate.hold(timedelta(minutes=1), "asked to wait")
    assert not await waiting and gate.in_flight == 1


async def test_who_waits_for_room_at_a_slow_rate_learns_that_the_process_stops(time: Time) -> None:
    gate = Gate(4, 0.01, clock=time, sleep=time.sleep)
    gate.enter(), gate.leave()
    waiting = asyncio.create_task(gate.room())
    await asyncio.sleep(0)
    gate.close()
    assert await waiting == 0 and time.seconds < 103


def test_a_shorter_hold_that_pauses_is_not_lost_behind_a_longer_one_that_does_not(time: Time) -> None:
    for first in (True, False):
        gate = Gate(4, clock=time)
        gate.hold(timedelta(minutes=5 if first else 15), "one", pauses=first)
        gate.hold(timedelta(minutes=15 if first else 5), "other", pauses=not first)
        assert gate.paused == ("one" if first else "other")
        time.seconds += 301
        assert (bool(gate.paused), bool(gate.held)) == (False, True)


async def test_a_place_that_is_left_to_others_for_a_while_costs_the_rate_nothing(time: Time) -> None:
    gate = Gate(8, rate=10, clock=time, sleep=time.sleep)
    gate.enter()
    with gate.stepping_aside():
        assert gate.in_flight == 0
    assert gate.in_flight == 1
    began = time.seconds
    await gate.room()
    assert time.seconds - began == pytest.approx(0.1, abs=0.002)


async def test_what_is_being_claimed_has_its_places(time: Time) -> None:
    gate = Gate(8)
    with gate.claiming(7):
        assert await gate.turn()
        waiting = asyncio.create_task(gate.turn())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
    assert await waiting and gate.in_flight == 2


async def test_those_who_wait_for_their_turn_get_it_in_order_and_one_at_a_time_looks() -> None:
    looks, order = 0, []

    async def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        await asyncio.sleep(seconds)

    gate = Gate(128, rate=200, sleep=sleep)

    async def ask(number: int) -> None:
        assert await gate.turn()
        order.append(number)

    await asyncio.gather(*map(ask, range(70)))
    assert order == list(range(70))
    assert looks <= 2 * (70 - 2 * 20), "forty may begin at once, half of them on credit"
