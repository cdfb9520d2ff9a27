"""Clocks: the database's time, as leases, expiries and due times need it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

log = logging.getLogger(__name__)

SLEW = 0.1
"""By how much it runs faster or slower than time passes until it agrees with a wall clock that was set."""

JUMP_SECONDS = 5.0


boottime = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds that nobody sets, and that go on while the machine is suspended: tokens go on ageing too."""


class Clock(Protocol):
    """The database's time; tests move `offset`."""

    offset: timedelta

    def __call__(self) -> datetime: ...


class SteadyClock:
    """This machine's time, that of a database that is a file on it; a wall clock that is set does not move it at once.

    A day's jump would make every grant due in the same second. It never goes back, and catches up by a tenth of the
    time that passes, so that a jump brings refreshes forward by as little.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = boottime) -> None:
        self.offset = timedelta()
        self._wall = wall
        self._steady = steady
        self._time, self._read_at = wall(), steady()
        self._jumped = False
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        with self._lock:
            steady = self._steady()
            passed, self._read_at = steady - self._read_at, steady
            self._time += passed
            gap, reach = self._wall() - self._time, SLEW * passed
            if -reach <= gap <= reach:
                self._time += gap
                self._jumped = False
            else:
                self._time += reach if gap > 0 else -reach
                self._tell(gap)
            return datetime.fromtimestamp(self._time, UTC) + self.offset

    def _tell(self, gap: float) -> None:
        jumped = abs(gap) > JUMP_SECONDS
        if jumped and not self._jumped:
            log.warning("the wall clock was set; it is followed slowly", extra={"seconds": round(gap)})
        self._jumped = jumped
