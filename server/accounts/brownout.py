"""The brown-out guard of one platform: when it calls many grants dead at once, the fault may be the platform's own.

A verdict (this grant is dead) is not pronounced before others bear it out, and is held while the platform is doubted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from server.accounts.gate import Gate
from server.accounts.tally import Tally

WINDOWS_SECONDS = (600.0, 30.0)
"""Ten minutes; and half a minute, in which a sudden brown-out shows although many refreshes went before it."""

FEWEST_DEAD = 20
DEAD_SHARE = 0.05
HOLD = timedelta(minutes=15)
PROBES = 5
REASON = "the platform calls too many grants dead at once; the verdicts are held"


class BrownOutGuard:
    """Doubts the platform when at least twenty grants, over 5 % of its refreshes, are called dead within a window.

    A verdict stands at once where nothing else is under way to compare with, else when a refresh that began after it
    succeeds. While the platform is doubted, verdicts are held, and so is the platform, for fifteen minutes. Then five
    of the held grants are asked again: if one lives the doubt was right and is over; if others refresh meanwhile while
    these do not, the held verdicts stand; else the hold goes on.
    """

    def __init__(self, gate: Gate, alone: Callable[[], bool]) -> None:
        """`alone` says that no other refresh of the platform is under way or about to be."""
        self._gate = gate
        self._alone = alone
        self._dead = [Tally(seconds, gate.now) for seconds in WINDOWS_SECONDS]
        self._waiting: dict[asyncio.Future[bool], float] = {}
        self._held: set[str] = set()
        self._borne_out: set[str] = set()
        self.doubtful = False

    def refreshed(self, grant_id: str, begun_at: float) -> None:
        """A refresh has succeeded: what was called dead before it began is dead."""
        self._borne_out.discard(grant_id)
        self._count(dead=False)
        self._settle(True, began_before=begun_at)

    async def stands(self, grant_id: str, limit: timedelta) -> bool:
        """Whether the verdict on a grant that was called dead may be pronounced; decided within `limit`."""
        if grant_id in self._borne_out:
            self._borne_out.discard(grant_id)
            return True
        self._count(dead=True)
        if self._alone():
            self.settle()
        elif not self.doubtful:
            waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._waiting[waiting] = self._gate.now()
            await asyncio.wait((waiting,), timeout=limit.total_seconds())
            del self._waiting[waiting]
        if self.doubtful:
            self._held.add(grant_id)
        return not self.doubtful

    def settle(self) -> None:
        """Pronounces what waits, if nothing is under way any more that could bear it out."""
        if self._alone():
            self._settle(True)

    @property
    def to_probe(self) -> tuple[str, ...]:
        """Held grants to ask again, once the hold has ended."""
        return tuple(sorted(self._held)[:PROBES]) if self.doubtful and not self._gate.held else ()

    def probed(self, *, held_lives: bool, others_refresh: bool) -> None:
        """What came of a round of probes, in which held grants and others were asked."""
        if held_lives:
            self._trust()
        elif others_refresh:
            self.bear_out()
        else:
            self._doubt()

    def bear_out(self) -> None:
        """The held verdicts stand: each is pronounced when its grant is called dead once more."""
        self._borne_out |= self._held
        self._trust()

    def _count(self, *, dead: bool) -> None:
        for tally in self._dead:
            tally.add(dead)
        if not self.doubtful and any(t.hits >= FEWEST_DEAD and t.share > DEAD_SHARE for t in self._dead):
            self._doubt()

    def _doubt(self) -> None:
        self.doubtful = True
        self._gate.hold(HOLD, REASON)
        self._settle(False)

    def _trust(self) -> None:
        self.doubtful = False
        self._held.clear()
        for tally in self._dead:
            tally.clear()

    def _settle(self, stands: bool, began_before: float | None = None) -> None:
        for waiting, since in list(self._waiting.items()):
            if not waiting.done() and (began_before is None or since < began_before):
                waiting.set_result(stands)
