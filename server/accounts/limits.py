"""Limits of callers: how many calls, accounts and revokes in how long, so that a stolen credential is not worth much.

Each process counts for itself, on a monotonic clock; what is counted takes no more memory than the limits say.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from datetime import timedelta

from server.accounts.callers import Limits
from server.accounts.errors import RateLimited

MINUTE = 60.0


class Pace:
    """So many a second; after a pause as many at once as in one second."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = max(1.0, rate)
        self._clock = clock
        self._allowance, self._at = self._burst, clock()

    def take(self) -> float:
        """Takes one and returns 0; or returns the seconds until there is one."""
        now = self._clock()
        self._allowance = min(self._burst, self._allowance + (now - self._at) * self._rate)
        self._at = now
        if self._allowance < 1.0:
            return (1.0 - self._allowance) / self._rate
        self._allowance -= 1.0
        return 0.0


class Recent:
    """The distinct things of the last minute."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._seen: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def wait(self) -> float:
        """The seconds until there is room for another one; 0 if there is."""
        now = self._clock()
        while self._seen and next(iter(self._seen.values())) <= now - MINUTE:
            self._seen.popitem(last=False)
        return 0.0 if len(self._seen) < self._limit else next(iter(self._seen.values())) + MINUTE - now

    def take(self, thing: Hashable) -> float:
        """Takes one and returns 0, also where it is one of them already; or returns the seconds until there is room."""
        wait = self.wait()
        if wait and thing not in self._seen:
            return wait
        self.note(thing)
        return 0.0

    def note(self, thing: Hashable) -> None:
        """Takes one whether there is room or not."""
        self._seen[thing] = self._clock()
        self._seen.move_to_end(thing)


class CallerLimits:
    """What one caller has done of late, held against its limits. What raises RateLimited counts for nothing."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._calls = None if limits.rate is None else Pace(limits.rate, clock)
        self._accounts = None if limits.accounts_a_minute is None else Recent(limits.accounts_a_minute, clock)
        self._revokes = None if limits.revokes_a_minute is None else Recent(limits.revokes_a_minute, clock)
        self._revoked = 0
        self.turn = None if self._accounts is None else asyncio.Lock()
        """Lists take turns where accounts are limited: what they show is known, and counts, when they are answered."""

    def call(self) -> None:
        """A call, of whatever kind."""
        if self._calls is not None:
            refuse("rate", self._calls.take())

    def account(self, account_id: str) -> None:
        """A call that names an account, whether there is one or not."""
        # A hash takes the same room however long the text is.
        if self._accounts is not None:
            refuse("accounts_a_minute", self._accounts.take(hash(account_id)))

    def listing(self) -> None:
        """A call that asks for accounts without naming them."""
        if self._accounts is not None:
            refuse("accounts_a_minute", self._accounts.wait())

    def listed(self, account_ids: Iterable[str]) -> None:
        """A page was answered: it counts whole, so that a page may be longer than the limit and the next one waits."""
        if self._accounts is not None:
            for account_id in account_ids:
                self._accounts.note(hash(account_id))

    def revoke(self) -> None:
        if self._revokes is not None:
            self._revoked += 1
            refuse("revokes_a_minute", self._revokes.take(self._revoked))

    def revoked(self, account_ids: Iterable[str]) -> None:
        """A profile was deleted: its accounts count, so that the next call waits; asking for the receipt adds none."""
        if self._revokes is not None:
            for account_id in account_ids:
                self._revokes.note(account_id)


def refuse(limit: str, wait: float) -> None:
    """Raises RateLimited where there is anything to wait for."""
    if wait > 0:
        raise RateLimited(f"over the caller's limit {limit}", timedelta(seconds=wait), limit=limit)
