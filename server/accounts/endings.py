"""Grants that cannot be refreshed: that they end soon is told some days ahead, so that users connect again in time."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from server.accounts.ports import Store

AT_ONCE: Final = 200


class Endings:
    """Sees to it that watchers are told, once for each grant."""

    def __init__(self, store: Store, ahead: timedelta) -> None:
        self._store = store
        self._ahead = ahead

    async def work_off(self) -> None:
        """Raises StoreUnavailable."""
        while await self._store.tell_ends(self._ahead, limit=AT_ONCE):
            pass
