"""The calendar."""

import asyncio
import datetime as datetime_module
import logging

import pytest
import schedule

from server.scheduler import Calendar


class Clock:
    """Moves the wall clock of `schedule` and of the calendar, and the monotonic one, apart or together."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_seconds = 1_800_000_000.0
        self.monotonic_seconds = 50.0
        clock = self

        class Frozen(datetime_module.datetime):
            @classmethod
            def now(cls, tz: datetime_module.tzinfo | None = None) -> "Frozen":
                return cls.fromtimestamp(clock.wall_seconds, tz)

        monkeypatch.setattr(schedule.datetime, "datetime", Frozen)

    def advance(self, seconds: float) -> None:
        self.wall_seconds += seconds
        self.monotonic_seconds += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def calendar(clock: Clock) -> Calendar:
    return Calendar(wall=lambda: clock.wall_seconds, monotonic=lambda: clock.monotonic_seconds)


async def test_a_job_runs_at_its_times(calendar: Calendar, clock: Clock) -> None:
    runs: list[float] = []

    async def work() -> None:
        runs.append(clock.wall_seconds)

    calendar.every(10, "work", work)
    for _ in range(25):
        clock.advance(1)
        calendar.run_pending()
        await calendar.settled()
    assert len(runs) == 2


async def test_a_process_that_soon_dies_has_run_each_job(calendar: Calendar) -> None:
    runs: list[str] = []

    async def work() -> None:
        runs.append("ran")

    calendar.every(600, "work", work)
    calendar.start()
    await calendar.settled()
    await calendar.stop()
    assert runs == ["ran"]


async def test_a_job_that_still_runs_is_not_begun_again(calendar: Calendar, clock: Clock) -> None:
    started, go_on = 0, asyncio.Event()

    async def work() -> None:
        nonlocal started
        started += 1
        await go_on.wait()

    calendar.every(1, "work", work)
    for _ in range(5):
        clock.advance(1)
        calendar.run_pending()
        await asyncio.sleep(0)
    assert started == 1
    go_on.set()
    await calendar.settled()


async def test_a_failing_run_is_logged_and_the_next_one_comes(
    calendar: Calendar, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        raise RuntimeError("bad hour")

    calendar.every(1, "work", work)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            clock.advance(1.1)
            calendar.run_pending()
            await calendar.settled()
    assert runs == 2
    assert "a job failed" in caplog.text


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
async def test_a_jump_of_the_wall_clock_neither_stops_a_job_nor_runs_it_at_once(
    calendar: Calendar, clock: Clock, jump: float
) -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1

    calendar.every(10, "work", work)
    clock.wall_seconds += jump
    calendar.run_pending()
    await calendar.settled()
    assert runs == 0
    clock.advance(11)
    calendar.run_pending()
    await calendar.settled()
    assert runs == 1
