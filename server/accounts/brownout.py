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
PROBE_AGAIN = timedelta(seconds=5)
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
        self._held: dict[str, int] = {}
        self._borne_out: set[str] = set()
        self.doubtful = False

    def refreshed(self, grant_id: str, begun_at: float) -> None:
        """A refresh has succeeded: what was called dead before it began is dead."""
        self._borne_out.discard(grant_id)
        self._count(dead=False)
        self._settle(True, began_before=begun_at)

    async def stands(self, grant_id: str, generation: int, limit: timedelta) -> bool:
        """Whether the verdict on a grant that was called dead may be pronounced; decided within `limit`."""
        if grant_id in self._borne_out:
            self._borne_out.discard(grant_id)
            return True
        self._count(dead=True)
        stands = not self.doubtful
        if stands and not self._alone():
            stands = await self._borne_out_within(limit)
        elif stands:
            self.settle()
        if self.doubtful:
            self._held[grant_id] = generation
        return stands and not self.doubtful

    def settle(self) -> None:
        """Pronounces what waits, if nothing is under way any more that could bear it out."""
        if self._alone():
            self._settle(True)

    def stop(self) -> None:
        """The process is stopping: what still waits is pronounced another time."""
        self._settle(False)

    @property
    def to_probe(self) -> dict[str, int]:
        """Held grants to ask again, once the hold has ended, with the generation that was called dead."""
        return dict(sorted(self._held.items())[:PROBES]) if self.doubtful and not self._gate.held else {}

    def forget(self, grant_id: str) -> None:
        """A held grant was refreshed, revoked or ended otherwise: its verdict is none any more."""
        self._held.pop(grant_id, None)

    def wait(self) -> None:
        """The held grants cannot be asked just now: others have them."""
        self._gate.hold(PROBE_AGAIN, REASON)

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
        self._borne_out |= self._held.keys()
        self._trust()

    async def _borne_out_within(self, limit: timedelta) -> bool:
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = self._gate.now()
        await asyncio.wait((waiting,), timeout=limit.total_seconds())
        del self._waiting[waiting]
        return waiting.result() if waiting.done() else True

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
