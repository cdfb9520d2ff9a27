"""Virtual time: an event loop on which waiting takes none, and the clock of a database that follows it."""

import asyncio
import heapq
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 1, 1, tzinfo=UTC)
START_US = round(START.timestamp() * 1_000_000)


class NothingWillHappen(Exception):
    """Everybody waits and no timer is set: a deadlock."""


class VirtualSelector(selectors.DefaultSelector):
    """Instead of waiting for files it moves the time to the next timer."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise NothingWillHappen
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is virtual and whose threads are none: what would run in one runs here and now."""

    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-6  # sums of floats end a little before their timer
        self.delay_of_threads: Callable[[], float] = lambda: 0.0

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """The effect happens at once; who waits for it hears of it later, and may have died by then."""
        future = self.create_future()
        try:
            settle, outcome = future.set_result, func(*args)
        except Exception as error:
            settle, outcome = future.set_exception, error
        self.call_later(self.delay_of_threads(), lambda: future.done() or settle(outcome))
        return future


class VirtualClock:
    """The database's time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.offset = timedelta()
        self._loop = loop

    def __call__(self) -> datetime:
        return START + timedelta(seconds=self._loop.time()) + self.offset


class Alarm:
    """Lets loops sleep until something is due, also if it becomes due earlier than they knew."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    async def sleep_until(self, when: float) -> None:
        future = self._loop.create_future()
        self._count += 1
        handle = self._loop.call_at(when, wake, future)
        heapq.heappush(self._sleepers, (-when, self._count, future))
        try:
            await future
        finally:
            handle.cancel()

    def ring_at(self, when: float) -> None:
        """Whoever would sleep longer than that wakes then."""
        while self._sleepers and -self._sleepers[0][0] > when:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                self._loop.call_at(max(when, self._loop.time()), wake, future)


def wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
