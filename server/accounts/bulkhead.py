"""Bulkheads: how much of one kind may be under way to a platform, so that one that hangs takes a bounded part of us."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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

    @contextmanager
    def place(self, caller: str, refusal: str) -> Iterator[None]:
        """Raises RateLimited, with this text, when all are taken, or all of this caller's."""
        if self._taken[caller] >= self._of_one or self.taken >= self.most:
            raise RateLimited(refusal, CROWDED_RETRY, limit="waiting")
        self._taken[caller] += 1
        try:
            yield
        finally:
            self._taken[caller] -= 1
