"""The clock of a database that is a file: what sets the wall clock does not move it at once."""

from datetime import timedelta

import pytest

from server.storage.clock import SteadyClock


class Times:
    """A wall clock that can be set, and a steady one that cannot."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.steady = 500.0
        self.clock = SteadyClock(lambda: self.wall, lambda: self.steady)
        self.start = self.clock()

    def pass_by(self, seconds: float) -> timedelta:
        """How much later it is by the clock."""
        before = self.clock()
        self.wall += seconds
        self.steady += seconds
        return self.clock() - before


@pytest.fixture
def times() -> Times:
    return Times()


def test_it_goes_as_time_passes(times: Times) -> None:
    assert times.pass_by(3600) == timedelta(hours=1)


@pytest.mark.parametrize("jump", [86400.0, -86400.0])
def test_a_days_jump_of_the_wall_clock_moves_it_by_a_tenth_of_the_time_that_passes(times: Times, jump: float) -> None:
    times.wall += jump
    assert times.clock() - times.start == timedelta()
    moved = times.pass_by(600)
    assert moved == timedelta(seconds=660 if jump > 0 else 540)


def test_it_catches_up_in_the_end(times: Times) -> None:
    times.wall += 60
    for _ in range(601):
        times.pass_by(1)
    assert times.clock() - times.start == timedelta(seconds=661)


def test_it_never_goes_back(times: Times) -> None:
    times.wall -= 86400
    seen = [times.clock()]
    for _ in range(100):
        times.pass_by(0.01)
        seen.append(times.clock())
    assert seen == sorted(seen)
