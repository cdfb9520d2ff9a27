"""The gate of one platform: how many requests may be under way, and since when and why none may begin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta


class Gate:
    """Caps the requests in flight to one platform and holds new ones back until a moment, with the reason.

    Retry-After, a refused registration and operators only set it; whoever begins requests asks it first. Waits are on
    a monotonic clock, so a jump of the wall clock opens nothing.
    """

    def __init__(self, in_flight_cap: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._cap = in_flight_cap
        self._clock = clock
        self._in_flight = 0
        self._opens_at = 0.0
        self._reason = ""
        self._left = asyncio.Event()

    @property
    def free(self) -> int:
        """How many requests may begin now."""
        return 0 if self.held else self._cap - self._in_flight

    @property
    def held(self) -> str:
        """Why no request may begin now; empty if some may."""
        return self._reason if self._clock() < self._opens_at else ""

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def enter(self) -> None:
        self._in_flight += 1

    def leave(self) -> None:
        self._in_flight -= 1
        self._left.set()

    def hold(self, span: timedelta, reason: str) -> None:
        """Lets nothing begin for `span`; a hold that ends sooner than the present one changes nothing."""
        opens_at = self._clock() + span.total_seconds()
        if opens_at > self._opens_at:
            self._opens_at, self._reason = opens_at, reason

    async def room(self) -> int:
        """Waits until a quarter of the cap is free, or nothing is in flight; so claims come in batches."""
        while self._in_flight and self._cap - self._in_flight < max(1, self._cap // 4):
            self._left.clear()
            await self._left.wait()
        return self.free
