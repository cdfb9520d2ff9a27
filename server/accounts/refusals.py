"""Refusals: what a caller asked for and did not get is audited, one event for many, so that nobody can flood the audit.

The first refusal of a kind is recorded within a second, those of the minute that follows as one more event that counts
them. A kind is caller, method, reason, and which permission, field or limit it was: all from closed sets, so neither
memory nor the database grows with what is sent. Who has no credential is logged in the same way, and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from server.accounts.audit import Origin
from server.accounts.errors import AccountError, Reason, StoreUnavailable
from server.accounts.events import Refusal
from server.accounts.ports import Observer, Store

log = logging.getLogger(__name__)

SPAN_SECONDS: Final = 60.0
REFUSALS: Final = frozenset(
    {
        Reason.INVALID_FIELD,
        Reason.UNKNOWN_PLATFORM,
        Reason.ACCOUNT_NOT_FOUND,
        Reason.CONNECT_NOT_FOUND,
        Reason.CONNECT_MISMATCH,
        Reason.CALLER_NOT_PERMITTED,
        Reason.CALLER_UNKNOWN,
        Reason.RATE_LIMITED,
    }
)
"""The reasons that are the caller's own. Others tell how account, platform or service are: they refuse nobody."""
TOLD: Final[tuple[str, ...]] = ("permission", "field", "limit", "blocked")
"""The facts of an error that say what kind of refusal it was."""


class Refusals:
    """Counts refusals, and records them when their time has come."""

    def __init__(self, store: Store, observer: Observer, clock: Callable[[], float]) -> None:
        self._store = store
        self._observer = observer
        self._clock = clock
        self._waiting: dict[tuple[str, ...], Refusal] = {}
        self._recorded: dict[tuple[str, ...], float] = {}

    def note(
        self, caller: str, method: str, error: Exception, origin: Callable[[], Origin], named: Callable[[], str | None]
    ) -> None:
        """Takes note of why a call failed, if it was refused. `named` finds the account that the request names.

        `origin` and `named` are asked for the first of a kind alone, which stands for those that follow.
        """
        if not isinstance(error, AccountError) or getattr(error, "reason", None) not in REFUSALS:
            return
        self._observer.refused(method, error.reason.lower())
        facts = {name: error.facts[name] for name in TOLD if name in error.facts}
        kind = (caller, method, error.reason, *facts.values())
        if kind in self._waiting:
            self._waiting[kind].count += 1
            return
        where = origin()
        self._waiting[kind] = Refusal(
            caller, method, error.reason, facts, named() if caller else None, where.peer, where.request_id
        )

    async def work_off(self, *, leaving: bool = False) -> int:
        """Records what is new, and what was counted for a minute, or all of it; how many events. Raises
        StoreUnavailable, and goes on counting."""
        now = self._clock()
        self._recorded = {kind: time for kind, time in self._recorded.items() if time > now - SPAN_SECONDS}
        taken = {kind: each for kind, each in self._waiting.items() if leaving or kind not in self._recorded}
        if not taken:
            return 0
        for kind in taken:
            del self._waiting[kind]
            self._recorded[kind] = now
        tell_of_strangers([each for each in taken.values() if not each.caller])
        known = {kind: each for kind, each in taken.items() if each.caller}
        try:
            await self._store.record_refusals(tuple(known.values()))
        except StoreUnavailable:
            self._take_back(known)
            raise
        return len(known)

    def _take_back(self, taken: Mapping[tuple[str, ...], Refusal]) -> None:
        for kind, each in taken.items():
            later = self._waiting.pop(kind, None)
            each.count += 0 if later is None else later.count
            self._waiting[kind] = each
            del self._recorded[kind]


def tell_of_strangers(refusals: list[Refusal]) -> None:
    for each in refusals:
        said = {"method": each.method, "peer": each.peer, "request_id": each.request_id, "count": each.count}
        log.warning("calls without a caller's credential were refused", extra=said)
