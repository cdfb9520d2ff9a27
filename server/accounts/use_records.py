"""Records of uses: one before each is sent, without which it is not; one more of each that did not end well."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from server.accounts.audit import ORIGIN
from server.accounts.background import Background
from server.accounts.callers import Caller
from server.accounts.calls import Use, UseFailed
from server.accounts.errors import StoreUnavailable
from server.accounts.model import Account
from server.accounts.ports import NewId, Store
from server.accounts.routes import Route

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 0.05
"""How long a call waits for the record of how it ended; longer would cost its caller the outcome itself."""


class UseRecords:
    """Writes down who uses what; `background` does what goes on without a caller."""

    def __init__(self, store: Store, new_id: NewId, background: Background) -> None:
        self._store = store
        self._new_id = new_id
        self._background = background

    async def begin(self, caller: Caller, account: Account, route: Route) -> Use:
        """Returns when it is recorded that a request is about to be sent.

        Raises StoreUnavailable, and AccountNotFound or AccountRevoked of one that was erased or revoked meanwhile.
        """
        origin = ORIGIN.get()()
        use = Use(
            id=self._new_id(),
            account=account,
            caller=caller.name,
            method=route.method,
            route=route.template,
            peer=origin.peer,
            request_id=origin.request_id,
        )
        try:
            await self._store.record_use(use)
        except asyncio.CancelledError:
            self.end(use, "not_sent")  # it is being recorded all the same
            raise
        return use

    async def ended(self, use: Use, result: str, status: int = 0) -> None:
        """Records how it ended, beside the call, which waits for that a moment."""
        await asyncio.wait({self.end(use, result, status)}, timeout=PATIENCE_SECONDS)

    def end(self, use: Use, result: str, status: int = 0) -> asyncio.Task[None]:
        return self._background.begin(self._record(UseFailed(use, result, status)))

    async def _record(self, failed: UseFailed) -> None:
        try:
            await self._store.record_use_failed(failed)
        except StoreUnavailable as error:
            log.error("how a use ended is not recorded", extra={"use_id": failed.use.id, "why": error.text})
        except Exception:
            log.exception("how a use ended is not recorded", extra={"use_id": failed.use.id})
