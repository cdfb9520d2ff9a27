"""The bulkhead of one platform: how many calls on accounts' behalf may be under way; refreshes have their own gate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from server.accounts.errors import RateLimited

CROWDED_RETRY: Final = timedelta(seconds=1)


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
