"""Time limits: what takes longer ends with the reason that was given, and nothing else is taken for it."""

import asyncio

import pytest

from server.accounts.errors import TimeOver
from server.accounts.time_limit import TimeLimit
from tests.faults.simulation.virtual_time import VirtualLoop


def run(work) -> float:
    """Runs it on a loop whose time is moved; how long it took there."""

    async def timed() -> float:
        began = asyncio.get_running_loop().time()
        await work
        return asyncio.get_running_loop().time() - began

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(timed())


async def limited(seconds: float, work) -> None:
    with TimeLimit(seconds, TimeOver("it is too late")):
        await work


def test_what_takes_longer_is_cut_off_and_says_why() -> None:
    async def work() -> None:
        with pytest.raises(TimeOver, match="it is too late"):
            await limited(2.0, asyncio.sleep(60))

    assert run(work()) == pytest.approx(2.0)


def test_what_ends_in_time_is_left_alone_then_and_later() -> None:
    async def work() -> None:
        await limited(2.0, asyncio.sleep(1))
        await asyncio.sleep(5)

    assert run(work()) == pytest.approx(6.0)


@pytest.mark.parametrize("raised", [TimeoutError("another's"), ValueError("its own")], ids=str)
def test_what_it_raises_itself_goes_on(raised: Exception) -> None:
    async def fails() -> None:
        raise raised

    with pytest.raises(type(raised), match=str(raised)):
        run(limited(2.0, fails()))


def test_who_is_cancelled_in_the_same_instant_is_cancelled() -> None:
    async def work() -> None:
        task = asyncio.create_task(limited(2.0, asyncio.sleep(60)))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(2.0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    assert run(work()) == pytest.approx(2.0)


def test_a_time_that_is_over_already_leaves_what_ends_at_once_alone_and_nothing_else() -> None:
    async def work() -> None:
        await limited(-1.0, at_once())
        with pytest.raises(TimeOver):
            await limited(-1.0, asyncio.sleep(60))

    async def at_once() -> None:
        return None

    assert run(work()) == 0
