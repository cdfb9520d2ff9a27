"""Bulkheads: how much of one kind may be under way to a platform, so that one that hangs takes a bounded part of us."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from server.accounts.errors import RateLimited

CROWDED_RETRY: Final = timedelta(seconds=1)


class Places:
    """So many at once, and of one caller fewer: whatever it does, others find some."""

    def __init__(self, most: int, of_one: int) -> None:
        self._most = most
        self._of_one = of_one
        self._taken: Counter[str] = Counter()

    @contextmanager
    def place(self, caller: str, refusal: str) -> Iterator[None]:
        """Raises RateLimited, with this text, when all are taken, or all of this caller's."""
        if self._taken[caller] >= self._of_one or self._taken.total() >= self._most:
            raise RateLimited(refusal, CROWDED_RETRY, limit="waiting")
        self._taken[caller] += 1
        try:
            yield
        finally:
            self._taken[caller] -= 1


class Bulkhead:
    """So many calls at once; who comes when all places are taken is told at once, since a queue would only hide it."""

    def __init__(self, platform: str, places: int) -> None:
        self._platform = platform
        self._places = places
        self.in_flight = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises RateLimited when all are taken."""
        if self.in_flight >= self._places:
            text = f"{self._places} calls to {self._platform} are under way already"
            raise RateLimited(text, CROWDED_RETRY, limit="waiting")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
