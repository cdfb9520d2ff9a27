"""Rate limits: what platforms last said about theirs, so that a call that is certain to be refused need not be sent.

Each process remembers what it was told itself, for so many accounts and routes as it is told of, up to a bound. Answers
may arrive late: of a window that ends sooner than the one that is known nothing is taken any more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

MOST_REMEMBERED: Final = 20_000
LONGEST: Final = timedelta(hours=24)
"""A window that is said to end later than that is not believed to."""
NEVER: Final = datetime.fromtimestamp(0, UTC)
REFUSAL: Final = "retry-after"
"""The window of which a refusal tells alone."""


class RateLimit(NamedTuple):
    """A limit of the platform, as an answer told of it."""

    limit: int
    remaining: int
    reset_time: datetime | None = None
    """When its window begins anew, if the platform said so."""
    of_app: bool = False
    """Whether all accounts share it."""
    name: str = ""
    """Tells it from the platform's other limits: a route may have one for a quarter of an hour and one for a day."""


class Window(NamedTuple):
    """The newest window of a limit that is known."""

    end: datetime
    used_up: bool


class RateLimits:
    """Until when which calls are certain to be refused. A `route` is what the platform counts a call under."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], dict[str, Window]] = OrderedDict()

    def wait(self, platform: str, account_id: str, route: str, now: datetime) -> timedelta:
        """How long the platform would refuse a call; nothing if it may take one."""
        windows = [w for whose in (platform, account_id) for w in self._known.get((whose, route), {}).values()]
        return max((timedelta(), *(window.end - now for window in windows if window.used_up)))

    def learns_from(self, platform: str, account_id: str, route: str, limits: Sequence[RateLimit]) -> bool:
        """Whether what an answer that was not refused says of its limits may change anything; mostly there is room."""
        known = (platform, route) in self._known or (account_id, route) in self._known
        return known or any(limit.remaining <= 0 for limit in limits)

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
            if limit.reset_time is not None:
                whose = platform if limit.of_app else account_id
                self._take((whose, route), limit.name, Window(limit.reset_time, limit.remaining <= 0), now)
        if refused_for is not None:
            self._take((account_id, route), REFUSAL, Window(now + refused_for, used_up=True), now)

    def __len__(self) -> int:
        return len(self._known)

    def _take(self, key: tuple[str, str], name: str, window: Window, now: datetime) -> None:
        windows = self._known.get(key)
        known = None if windows is None else windows.get(name)
        # A window with room says nothing by itself; it only ends what is known of an older one.
        if window.end <= now or (known is None and not window.used_up):
            return
        window = Window(min(window.end, now + LONGEST), window.used_up)
        if known is not None and window <= known:  # of one window, that it is used up stands
            return
        if windows is None:
            windows = self._known[key] = {}
        windows[name] = window
        self._known.move_to_end(key)
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)


def tightest(limits: Sequence[RateLimit]) -> RateLimit | None:
    """Of several limits the one with the least left; where they have as little, the one that holds longest."""
    return min(limits, key=lambda limit: (limit.remaining, -(limit.reset_time or NEVER).timestamp()), default=None)
