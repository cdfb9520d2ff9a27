"""A tally: how many of the things that happened in the last while were of one kind, in little memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

PARTS = 30


class Tally:
    """Counts over a sliding window of `seconds`, which moves on in thirtieths."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._part_seconds = seconds / PARTS
        self._clock = clock
        self.clear()

    def add(self, hit: bool) -> None:
        self._move_on()
        part = self._parts[-1]
        part[0] += 1
        part[1] += hit
        self.total += 1
        self.hits += hit

    @property
    def share(self) -> float:
        """Hits of all, as of the last addition."""
        return self.hits / self.total if self.total else 0.0

    def clear(self) -> None:
        self.total = self.hits = 0
        self._parts: deque[list[int]] = deque([[0, 0]])
        self._newest = self._clock()

    def _move_on(self) -> None:
        passed = int((self._clock() - self._newest) / self._part_seconds)
        self._newest += passed * self._part_seconds
        for _ in range(min(passed, PARTS)):
            self._parts.append([0, 0])
            if len(self._parts) > PARTS:
                total, hits = self._parts.popleft()
                self.total -= total
                self.hits -= hits
