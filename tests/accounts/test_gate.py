"""The gate of a platform."""

import asyncio
from datetime import timedelta

from server.accounts.gate import Gate


def test_a_gate_lets_in_as_many_as_its_cap() -> None:
    gate = Gate(2)
    gate.enter()
    assert gate.free == 1
    gate.enter()
    assert gate.free == 0
    gate.leave()
    assert gate.free == 1


def test_a_held_gate_opens_by_itself_and_a_shorter_hold_does_not_shorten_a_longer_one() -> None:
    now = [100.0]
    gate = Gate(2, clock=lambda: now[0])
    gate.hold(timedelta(seconds=60), "asked to wait")
    gate.hold(timedelta(seconds=5), "shorter")
    now[0] += 59
    assert (gate.free, gate.held) == (0, "asked to wait")
    now[0] += 1
    assert (gate.free, gate.held) == (2, "")


async def test_room_comes_in_batches() -> None:
    gate = Gate(8)
    for _ in range(8):
        gate.enter()
    waiting = asyncio.create_task(gate.room())
    gate.leave()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.leave()
    assert await waiting == 2
