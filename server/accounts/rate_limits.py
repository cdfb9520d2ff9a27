"""Rate limits: what platforms last said about theirs, so that a call that is certain to be refused need not be sent.

Each process remembers what it was told itself, for so many accounts and routes as it is told of, up to a bound.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

MOST_REMEMBERED: Final = 20_000
LONGEST: Final = timedelta(hours=24)
"""A window that is said to end later than that is not believed to."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A limit of the platform, as an answer told of it."""

    limit: int
    remaining: int
    reset_time: datetime | None = None
    """When its window begins anew, if the platform said so."""
    of_app: bool = False
    """Whether all accounts share it."""


class RateLimits:
    """Until when which calls are certain to be refused."""

    def __init__(self) -> None:
        self._used_up: OrderedDict[Hashable, datetime] = OrderedDict()

    def wait(self, platform: str, account_id: str, route: str, now: datetime) -> timedelta:
        """How long the platform would refuse a call; nothing if it may take one."""
        waits = [self._used_up.get(key, now) - now for key in ((platform,), (account_id, route))]
        return max(timedelta(), *waits)

    def told(
        self,
        platform: str,
        account_id: str,
        route: str,
        limits: Sequence[RateLimit],
        refused_for: timedelta | None,
        now: datetime,
    ) -> None:
        """Takes what an answer said; `refused_for` is the Retry-After of one that refused the call."""
        for limit in limits:
            key = (platform,) if limit.of_app else (account_id, route)
            if limit.remaining > 0:
                self._used_up.pop(key, None)
            elif limit.reset_time is not None:
                self._remember(key, limit.reset_time, now)
        if refused_for is not None:
            self._remember((account_id, route), now + refused_for, now)

    def __len__(self) -> int:
        return len(self._used_up)

    def _remember(self, key: Hashable, until: datetime, now: datetime) -> None:
        if until <= now:
            return
        self._used_up[key] = min(until, now + LONGEST)
        self._used_up.move_to_end(key)
        if len(self._used_up) > MOST_REMEMBERED:
            self._used_up.popitem(last=False)


def tightest(limits: Sequence[RateLimit]) -> RateLimit | None:
    """Of several limits the one with the least left."""
    return min(limits, key=lambda limit: limit.remaining, default=None)
