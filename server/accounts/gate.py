"""The gate of one platform: how many requests may be under way, how fast they may begin, and why none may now."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

from server.accounts.bulkhead import Places, share_of_one

MOST_WAITING = 256
"""Callers may wait two deep for each of the refreshes that may be in flight."""
MOST_OF_ONE = share_of_one(MOST_WAITING)
MOST_EXCHANGES = 64
EXCHANGES_OF_ONE = share_of_one(MOST_EXCHANGES)
"""Each has a thread at once: in a queue behind codes that a hung platform has no answer to, honest ones would end."""
SMOOTHING_SECONDS = 0.1
"""A claim takes as many as may begin in this time, so that a backlog is worked off evenly."""

PATIENCE_SECONDS = 1.0
"""How long a claim waits for a good part of cap and rate."""

SHORTEST_SLEEP, LONGEST_SLEEP = 0.001, 1.0


class Hold(NamedTuple):
    """Until when on the gate's clock, and why."""

    until: float = 0.0
    reason: str = ""


class Gate:
    """Caps the requests in flight to one platform and their rate, and holds new ones back, with the reason.

    Retry-After, the breaker, the brown-out guard and operators only set it; whoever begins requests asks it first.
    Waits are on a monotonic clock, `now`, so a jump of the wall clock opens nothing. `rate` is requests begun a second.
    """

    def __init__(
        self,
        in_flight_cap: int,
        rate: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.rate = rate
        self.now = clock
        self._cap = in_flight_cap
        self._narrowed: int | None = None
        self._sleep = sleep
        self._in_flight = self._claimed = 0
        self._waiting = Places(MOST_WAITING, MOST_OF_ONE)
        self._exchanging = Places(MOST_EXCHANGES, EXCHANGES_OF_ONE)
        self._closed = ""
        self._paused = ""
        self._wait = self._suspension = Hold()
        self._left = asyncio.Event()
        self._queue = asyncio.Lock()
        """Of those who wait for their turn one looks at a time: 190 that each looked took a third of a core."""
        self._allowance, self._allowed_at = self._burst, clock()

    # --- what may begin

    @property
    def held(self) -> str:
        """Why no refresh may begin now; empty if some may."""
        return self._closed or self.paused or self._reason(self._wait)

    @property
    def paused(self) -> str:
        """Why nothing at all is sent to the platform: an operator says so, or it refuses us; empty if neither is so."""
        return self._paused or self._reason(self._suspension)

    @property
    def opens_in(self) -> timedelta:
        """How long the present hold lasts; nothing if there is none. A pause lasts until it is ended."""
        return timedelta(seconds=max(0.0, self._wait.until - self.now(), self._suspension.until - self.now()))

    @property
    def probing(self) -> bool:
        """Whether only a few requests are let through, to see whether the platform has recovered."""
        return self._narrowed is not None

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def free(self) -> int:
        """How many of the scheduler's requests may begin now. An eighth of the cap is kept for those on demand."""
        return 0 if self.held else max(0, min(self._slots, math.floor(self._allowed)))

    async def room(self) -> int:
        """Waits until a good part of cap and rate is free, so that claims come in batches; how many may begin.

        What is free after a second has to do: requests that hang keep their places for as long as they may take.
        """
        most = self._cap

        def settle_for_less() -> None:
            nonlocal most
            most = 1
            self._left.set()

        patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, settle_for_less)
        try:
            while not self.held:
                if self._in_flight and self._slots < min(self._enough, most):
                    await self._someone_left()
                elif not await self._waited_for(self._burst):
                    break
        finally:
            patience.cancel()
        return self.free

    async def turn(self) -> bool:
        """Waits for the turn of one request on demand, and enters it; False if the gate is held by then.

        It goes before the scheduler's, on credit of their rate. Who came first goes first.
        """
        async with self._queue:
            while not self.held:
                if self._in_flight + self._claimed >= (self._cap if self._narrowed is None else self._narrowed):
                    await self._someone_left()
                elif not await self._waited_for(1 - self._burst):
                    self.enter()
                    return True
        return False

    @contextmanager
    def waiting(self, platform: str, caller: str) -> Iterator[None]:
        """A place for one call while it waits for the platform. Raises RateLimited when all are taken, or all of one
        caller's.

        What goes on when the call has ended takes a place of its own: else short deadlines would begin more and more.
        """
        with self._waiting.place(caller, f"too many calls wait for {platform} already"):
            yield

    @contextmanager
    def exchanging(self, platform: str, caller: str) -> Iterator[None]:
        """A place for one exchange of a code, until that has ended. Raises RateLimited as `waiting` does."""
        text = f"too many connects are being completed at {platform} already"
        with self.waiting(platform, caller), self._exchanging.place(caller, text):
            yield

    def enter(self) -> None:
        self._allowance, self._allowed_at = self._allowed - 1, self.now()
        self._in_flight += 1

    def leave(self) -> None:
        self._in_flight -= 1
        self._left.set()

    @contextmanager
    def stepping_aside(self) -> Iterator[None]:
        """Leaves its place to others meanwhile, and comes back without asking. Nothing begins by that."""
        self.leave()
        try:
            yield
        finally:
            self._in_flight += 1

    @contextmanager
    def claiming(self, many: int) -> Iterator[None]:
        """Keeps so many places for what is being claimed: they are entered as soon as that is done."""
        self._claimed += many
        try:
            yield
        finally:
            self._claimed -= many
            self._left.set()

    # --- what holds it

    def hold(self, span: timedelta, reason: str, *, pauses: bool = False) -> None:
        """Lets no refresh begin for `span`, and nothing else either if it `pauses`.

        A hold that ends sooner than the present one of its kind changes nothing.
        """
        hold = Hold(self.now() + span.total_seconds(), reason)
        if pauses:
            self._suspension = max(self._suspension, hold)
        else:
            self._wait = max(self._wait, hold)
        self._left.set()

    def narrow(self, cap: int) -> None:
        """Lets only so many be under way, until it is widened again."""
        self._narrowed = cap

    def widen(self) -> None:
        self._narrowed = None

    def pause(self, reason: str) -> None:
        """Lets nothing begin until `resume`."""
        self._paused = reason
        self._left.set()

    def resume(self) -> None:
        """Ends a pause, and whatever else holds or narrows the gate."""
        self._paused, self._narrowed = "", None
        self._wait = self._suspension = Hold()

    def close(self) -> None:
        """Lets no refresh begin any more: the process is stopping. Whoever waits learns of it within a second."""
        self._closed = "the service is stopping"
        self._left.set()

    def _reason(self, hold: Hold) -> str:
        return hold.reason if hold.reason and self.now() < hold.until else ""

    @property
    def _slots(self) -> int:
        cap = self._cap - self._cap // 8 if self._narrowed is None else self._narrowed
        return cap - self._in_flight

    @property
    def _enough(self) -> int:
        """Free slots that are worth a claim: half the cap, but no more than the rate lets begin at once."""
        return 1 if self.probing else max(1, min(self._cap // 2, math.floor(self._burst)))

    @property
    def _burst(self) -> float:
        """As many as may begin at once."""
        return min(max(1.0, self.rate * SMOOTHING_SECONDS), self._cap)

    @property
    def _allowed(self) -> float:
        """What the rate allows now; below nothing where requests on demand have taken it in advance."""
        if math.isinf(self.rate):
            return self._burst
        return min(self._burst, self._allowance + self.rate * (self.now() - self._allowed_at))

    async def _waited_for(self, allowance: float) -> bool:
        """Sleeps for a while if the rate does not allow so much yet; whether it has, so that the caller looks again."""
        missing = allowance - self._allowed
        if missing <= 0:
            return False
        await self._sleep(min(max(missing / self.rate, SHORTEST_SLEEP), LONGEST_SLEEP))
        return True

    async def _someone_left(self) -> None:
        self._left.clear()
        await self._left.wait()
