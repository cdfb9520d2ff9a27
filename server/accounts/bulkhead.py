"""Bulkheads: how much of one kind may be under way to a platform, so that one that hangs takes a bounded part of us."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Final

from server.accounts.errors import RateLimited

CROWDED_RETRY: Final = timedelta(seconds=1)


def share_of_one(most: int) -> int:
    """How many of so many places one of several callers may have, so that whatever it does, others find some."""
    return max(1, most * 3 // 4)


class Places:
    """So many at once, and of one caller fewer if that is given.

    Who comes when all are taken is told at once, since a queue would only hide it.
    """

    def __init__(self, most: int, of_one: int | None = None) -> None:
        self.most = most
        self._of_one = most if of_one is None else of_one
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        return self._taken.total()

    def place(self, caller: str, refusal: str) -> TakenPlace:
        """One of them, as a context. Raises RateLimited, with this text, when all or all of this caller's are taken."""
        if self._taken[caller] >= self._of_one or self.taken >= self.most:
            raise RateLimited(refusal, CROWDED_RETRY, limit="waiting")
        return TakenPlace(self._taken, caller)


class TakenPlace:
    """A place that a caller has while the context lasts."""

    __slots__ = ("_caller", "_taken")

    def __init__(self, taken: Counter[str], caller: str) -> None:
        self._taken = taken
        self._caller = caller

    def __enter__(self) -> None:
        self._taken[self._caller] += 1

    def __exit__(self, *_: object) -> None:
        self._taken[self._caller] -= 1
