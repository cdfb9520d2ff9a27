"""One watcher: its place among the changes, and what wakes or ends it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

from server.accounts.changes import BEGINNING, Mark, View


class CutOff(Exception):
    """With this the call of a watcher is cancelled that does not read; `error` is why it is ended, if not to leave."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__("cut off: it does not read")
        self.error = error


@dataclass(slots=True, eq=False)
class Watcher:
    """A watch under way. It rests while there is nothing to tell, and is woken for what it is told alone."""

    view: View
    task: asyncio.Task[Any]
    """The call that it is."""
    mark: Mark = BEGINNING
    """Whatever precedes it was told, or is not for this watcher."""
    beat_time: float = 0.0
    """When the next heartbeat is due, on the monotonic clock."""
    telling_since: float = math.inf
    """Since when its caller has not taken what it is told, on the same clock; infinity while there is nothing."""
    end_time: float | None = None
    """When it was ended, on the same clock."""
    error: Exception | None = None
    """Why it is ended; None where the server is leaving."""
    _rest: asyncio.Future[None] | None = field(default=None)

    @property
    def ended(self) -> bool:
        return self.end_time is not None

    @property
    def rests(self) -> bool:
        return self._rest is not None

    async def rest(self) -> None:
        """Returns when it is woken."""
        self._rest = asyncio.get_running_loop().create_future()
        try:
            await self._rest
        finally:
            self._rest = None

    def wake(self) -> None:
        """It rests no more from now on, whenever its call gets to run: what comes from now on is not skipped."""
        if self._rest is not None:
            if not self._rest.done():  # its caller may have left this instant
                self._rest.set_result(None)
            self._rest = None

    def skip_to(self, mark: Mark) -> None:
        """Nothing up to there is for a watcher that rests."""
        if self.rests and self.mark.number < mark.number:
            self.mark = mark

    def end(self, now: float, error: Exception | None = None) -> None:
        """Ends it, as soon as it has a moment; the first reason stands."""
        if not self.ended:
            self.end_time, self.error = now, error
        self.wake()

    def cut_off(self) -> None:
        """For one that is ended and is still in the middle of telling something: its caller does not read."""
        self.task.cancel(CutOff(self.error))
