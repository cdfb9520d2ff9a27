"""The breaker of one platform: when half of its answers are failures it is left alone, but for a probe now and then."""

from __future__ import annotations

from datetime import timedelta

from server.accounts.gate import Gate
from server.accounts.tally import Tally

WINDOW_SECONDS = 30.0
FEWEST_CALLS = 20
FAILING_SHARE = 0.5
PROBE_INTERVAL = timedelta(seconds=5)
LAST_TRY_INTERVAL = timedelta(minutes=5)


class Breaker:
    """Opens when half of at least twenty refreshes in thirty seconds brought no answer, or one that says nothing of
    the grant: a failure of the platform, a refusal of every request.

    Open, it lets one refresh through every five seconds; the first that the platform answers closes it. What was begun
    before it opened says nothing about a recovery.

    A probe must not cost a grant its last try. Where only such grants are due, one of them is risked every five
    minutes: somebody has to find out.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._failures = Tally(WINDOW_SECONDS, gate.now)
        self._opened_at: float | None = None
        self._risked_at = 0.0

    @property
    def open(self) -> bool:
        return self._opened_at is not None

    def saw(self, *, failed: bool, begun_at: float) -> None:
        """One refresh has ended; `begun_at` is on the gate's clock."""
        if self._opened_at is not None:
            if begun_at >= self._opened_at:
                self._probed(failed)
            return
        self._failures.add(failed)
        if self._failures.total >= FEWEST_CALLS and self._failures.share >= FAILING_SHARE:
            self._opened_at = self._risked_at = self._gate.now()
            self._gate.narrow(1)
            self._wait()

    def risks_a_last_try(self) -> bool:
        """Whether a grant may be probed with whose refresh token was sent before; at most every five minutes."""
        now = self._gate.now()
        if self._opened_at is None or now < self._risked_at + LAST_TRY_INTERVAL.total_seconds():
            return False
        self._risked_at = now
        return True

    def close(self) -> None:
        """The platform answers again, or an operator says so."""
        self._opened_at = None
        self._failures.clear()
        self._gate.widen()

    def _probed(self, failed: bool) -> None:
        if failed:
            self._wait()
        else:
            self.close()

    def _wait(self) -> None:
        self._gate.hold(PROBE_INTERVAL, "the platform fails at half of our requests or more")
