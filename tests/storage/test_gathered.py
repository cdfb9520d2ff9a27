"""Writes that wait together go together, in order, and none of them harms another."""

import asyncio
from collections.abc import Sequence

import pytest

from server.accounts.errors import StoreUnavailable
from server.storage.gathered import CROWD, MOST, Gathered
from tests.faults.simulation.virtual_time import VirtualLoop


class Writer:
    """Doubles numbers; refuses what it is told to."""

    def __init__(self, refused: Exception | None = None, at: int = -1) -> None:
        self.groups: list[list[int]] = []
        self.refused = refused
        self.at = at

    async def write(self, numbers: Sequence[int]) -> list[int]:
        self.groups.append(list(numbers))
        await asyncio.sleep(0)
        if self.refused is not None and self.at in numbers:
            raise self.refused
        return [2 * number for number in numbers]


async def put(writer: Writer, count: int) -> list[int | BaseException]:
    gathered = Gathered(writer.write)
    return await asyncio.gather(*map(gathered.put, range(count)), return_exceptions=True)


async def test_what_waits_goes_together_in_order_and_each_gets_its_own_result() -> None:
    writer = Writer()
    assert await put(writer, MOST + 10) == [2 * number for number in range(MOST + 10)]
    assert writer.groups == [list(range(MOST)), list(range(MOST, MOST + 10))]


async def test_what_comes_while_a_group_is_written_goes_next() -> None:
    writer = Writer()
    gathered = Gathered(writer.write)
    first = asyncio.create_task(gathered.put(1))
    for _ in range(2):  # it begins, and then its group does
        await asyncio.sleep(0)
    assert await asyncio.gather(gathered.put(2), gathered.put(3), first) == [4, 6, 2]
    assert writer.groups == [[1], [2, 3]]


async def test_one_at_fault_fails_alone() -> None:
    writer = Writer(ValueError("not this one"), at=2)
    results = await put(writer, 4)
    assert [isinstance(result, ValueError) for result in results] == [False, False, True, False]


async def test_a_database_that_is_away_is_not_asked_again_for_each() -> None:
    writer = Writer(StoreUnavailable("away"), at=2)
    results = await put(writer, 4)
    assert all(isinstance(result, StoreUnavailable) for result in results)
    assert len(writer.groups) == 1


async def test_a_caller_that_gives_up_does_not_undo_its_write() -> None:
    writer = Writer()
    gathered = Gathered(writer.write)
    leaving = asyncio.create_task(gathered.put(1))
    staying = asyncio.create_task(gathered.put(2))
    await asyncio.sleep(0)
    leaving.cancel()
    async with asyncio.timeout(5):
        assert await staying == 4
    assert writer.groups == [[1, 2]]
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_a_database_that_hangs_is_given_so_much_to_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.storage.gathered.MOST_WAITING", 3)
    go_on, writer = asyncio.Event(), Writer()

    async def hangs(numbers: Sequence[int]) -> list[int]:
        await go_on.wait()
        return await writer.write(numbers)

    gathered = Gathered(hangs)
    leaving = [asyncio.create_task(gathered.put(1))]
    for _ in range(2):  # it is with the database
        await asyncio.sleep(0)
    leaving += [asyncio.create_task(gathered.put(number)) for number in (2, 3)]
    staying = asyncio.create_task(gathered.put(4))
    await asyncio.sleep(0)
    for one in leaving:
        one.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailable):
            await gathered.put(5)
        go_on.set()
        assert await staying == 8
        assert await gathered.put(6) == 12
    assert writer.groups == [[1], [2, 3, 4], [6]]


async def put_every(seconds: float, count: int, writer: Writer) -> list[float]:
    """Puts one after the other at that pace, into what waits for others for a tenth of a second; how long each took."""
    gathered = Gathered(writer.write, patience=0.1)
    loop = asyncio.get_running_loop()

    async def one(number: int) -> float:
        await asyncio.sleep(number * seconds)
        began = loop.time()
        assert await gathered.put(number) == 2 * number
        return loop.time() - began

    return await asyncio.gather(*map(one, range(count)))


def test_in_a_crowd_a_group_waits_for_more_and_nobody_longer_than_that() -> None:
    writer = Writer()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        took = runner.run(put_every(0.01, 40, writer))
    assert len(writer.groups) <= CROWD + 40 * 0.01 / 0.1
    assert max(took) <= 0.1 + 1e-6


def test_who_comes_alone_waits_for_nobody() -> None:
    writer = Writer()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        took = runner.run(put_every(0.11 / (CROWD - 1), 40, writer))
    assert writer.groups == [[number] for number in range(40)]
    assert max(took) == 0


def test_a_group_that_is_full_waits_for_nobody() -> None:
    writer = Writer()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        took = runner.run(put_every(0, 2 * MOST, writer))
    assert list(map(len, writer.groups)) == [MOST, MOST]
    assert max(took) == 0


def test_a_group_that_fills_up_while_it_waits_goes_at_once() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        took = runner.run(put_every(0.001, 5 * MOST, Writer()))
    assert max(took[: 3 * MOST]) <= MOST * 0.001 + 1e-6
