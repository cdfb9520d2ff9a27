"""Pauses: what operators say about platforms reaches the gates of every process."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime

from server.accounts.gate import Gate
from server.accounts.ports import Store
from server.accounts.refresh import Refresher

log = logging.getLogger(__name__)


class PauseWatch:
    """Sets the gates as the database says. What was resumed before this process began means nothing to it."""

    def __init__(self, store: Store, gates: Mapping[str, Gate], refresher: Refresher) -> None:
        self._store = store
        self._gates = gates
        self._refresher = refresher
        self._known: dict[str, datetime] | None = None

    async def follow(self) -> None:
        """Reads what operators said last, and does what is new. Raises StoreUnavailable."""
        pauses = [pause for pause in await self._store.pauses() if pause.platform in self._gates]
        for pause in pauses:
            new = self._known is not None and self._known.get(pause.platform) != pause.time
            if pause.reason:
                self._gates[pause.platform].pause(pause.reason)
            elif new:
                self._refresher.resume(pause.platform)
            if new:
                said = {"platform": pause.platform, "operator": pause.operator, "why": pause.reason}
                log.warning("platform paused" if pause.reason else "platform resumed", extra=said)
        self._known = {pause.platform: pause.time for pause in pauses}
