"""Reading identities again: notices a renamed handle, a new name or avatar, now and then, never on every refresh."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta

from server.accounts.errors import PlatformError, TokenRejected
from server.accounts.gate import Gate
from server.accounts.grants import IdentityRead
from server.accounts.ports import Platform, Store

log = logging.getLogger(__name__)

AT_ONCE = 8
RETRY = timedelta(hours=1)


class IdentityReader:
    """Keeps handle, display name and avatar as the platform has them, every `identity_interval` of its definition."""

    def __init__(self, store: Store, platforms: Mapping[str, Platform], gates: Mapping[str, Gate]) -> None:
        self._store = store
        self._platforms = platforms
        self._gates = gates
        self._stopping = False

    def stop(self) -> None:
        """Begins no reads any more."""
        self._stopping = True

    async def work_off(self, platform_id: str) -> int:
        """Reads the identities that are due on one platform, a few at a time; how many."""
        interval = self._platforms[platform_id].rules.identity_interval
        read = 0
        while not (self._stopping or self._gates[platform_id].held):
            due = await self._store.claim_identity_due(platform_id, retry=min(RETRY, interval), limit=AT_ONCE)
            if not due:
                break
            await asyncio.gather(*(self._one(platform_id, grant, interval) for grant in due))
            read += len(due)
        return read

    async def _one(self, platform_id: str, grant: IdentityRead, interval: timedelta) -> None:
        try:
            identities = await self._platforms[platform_id].identify(grant.token_set)
        except TokenRejected:
            # Only a refresh can tell whether the grant is dead or just this access token.
            await self._store.refresh_now(grant.grant_id, grant.generation)
            return
        except PlatformError as error:
            log.info("identity not read", extra={"grant_id": grant.grant_id, "why": error.text})
            return
        due_time = await self._store.now() + interval
        for identity in identities:
            await self._store.update_identity(grant.grant_id, identity, due_time=due_time)
