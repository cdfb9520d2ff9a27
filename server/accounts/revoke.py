"""Revoking: refused here from the first instant, asked of the platform until it confirms or a month is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta

from server.accounts.callers import Caller
from server.accounts.errors import PlatformError, PlatformRefused
from server.accounts.gate import Gate
from server.accounts.grants import ClaimedRevocation
from server.accounts.model import Account, PlatformRevocation
from server.accounts.ports import Observer, Platform, Store
from server.accounts.read import Reader
from server.accounts.timing import backoff

log = logging.getLogger(__name__)

WITHIN_CALL = timedelta(seconds=3)
LEASE = timedelta(seconds=60)
AT_ONCE = 8
OF_CALLS = 16
"""How many revocations that calls have asked for may be under way to a platform; AT_ONCE more are the outbox's."""


class Revoker:
    """Revokes accounts, and works off the outbox of tokens that the platform has not confirmed yet."""

    def __init__(
        self,
        store: Store,
        reader: Reader,
        platforms: Mapping[str, Platform],
        gates: Mapping[str, Gate],
        observer: Observer,
    ) -> None:
        self._store = store
        self._reader = reader
        self._platforms = platforms
        self._gates = gates
        self._observer = observer
        self._turns = {name: asyncio.Semaphore(OF_CALLS) for name in platforms}
        self._running: set[asyncio.Task[int]] = set()
        self._stopping = False

    async def revoke(self, caller: Caller, account_id: str) -> Account:
        """The revoked account with what the platform has confirmed by now. Raises AccountNotFound.

        The platform is asked once, for at most 3 seconds, and then in the background; while it is paused, later.
        Repeating it changes nothing.
        """
        account = await self._reader.get(caller, account_id)
        platform = self._platforms.get(account.platform)
        account = await self._store.revoke_account(
            account.id,
            caller=caller.name,
            **revocation_at(platform),
        )
        if account.platform_revocation is not PlatformRevocation.PENDING or platform is None:
            return account
        await self.ask([(account.platform, account.id)])
        return await self._store.account(account.id) or account

    async def ask(self, accounts: Sequence[tuple[str, str]]) -> None:
        """Asks platforms once to revoke what the outbox holds of accounts, each with its platform; 3 seconds at most.

        What takes longer goes on in the background; what has had no turn by then is left to the outbox's job.
        """
        tasks = [
            asyncio.create_task(self._in_turn(platform_id, account_id))
            for platform_id, account_id in accounts
            if platform_id in self._platforms
        ]
        for task in tasks:
            self._running.add(task)
            task.add_done_callback(self._ended)
        if tasks:
            await asyncio.wait(tasks, timeout=WITHIN_CALL.total_seconds())

    def _ended(self, task: asyncio.Task[int]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a revocation waits for the scheduler", extra={"why": str(error)})

    async def work_off(self, platform_id: str) -> int:
        """Revokes what is due in the outbox of one platform; how many entries were tried."""
        tried = 0
        while not self._stopping and (some := await self._round(platform_id, None)):
            tried += some
        return tried

    def stop(self) -> None:
        """Begins no round of the outbox any more; what calls have begun goes on."""
        self._stopping = True

    async def drain(self) -> None:
        """Waits for the revocations that calls have begun."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _in_turn(self, platform_id: str, account_id: str) -> int:
        try:
            async with asyncio.timeout(WITHIN_CALL.total_seconds()):
                await self._turns[platform_id].acquire()
        except TimeoutError:
            return 0
        try:
            return await self._round(platform_id, account_id)
        finally:
            self._turns[platform_id].release()

    async def _round(self, platform_id: str, account_id: str | None) -> int:
        if self._gates[platform_id].paused:
            return 0
        claimed = await self._store.claim_revocations(platform_id, lease=LEASE, limit=AT_ONCE, account_id=account_id)
        await asyncio.gather(*(self._one(platform_id, entry) for entry in claimed))
        return len(claimed)

    async def _one(self, platform_id: str, entry: ClaimedRevocation) -> None:
        platform = self._platforms[platform_id]
        try:
            for token in entry.tokens:
                await platform.revoke(token, platform.endpoints.revocation)
        except Exception as error:
            # Also a fault of ours: one entry must not stop the others, nor come back at once.
            retry_after = error.retry_after if isinstance(error, PlatformRefused) else None
            why = error.text if isinstance(error, PlatformError) else type(error).__name__
            due_time = await self._store.now() + backoff(entry.attempts, retry_after)
            said = {"revocation_id": entry.id, "why": why}
            if await self._store.retry_revocation(entry, due_time=due_time, error=why):
                self._observer.revoked(platform_id, "given_up")
                log.error("revocation given up; tokens that may be live are erased here", extra=said)
                return
            self._observer.revoked(platform_id, "retry")
            log.warning("revocation not confirmed", extra=said)
            return
        await self._store.finish_revocation(entry)
        self._observer.revoked(platform_id, "confirmed")


def revocation_at(platform: Platform | None) -> dict[str, bool]:
    """What the store has to know of a platform to revoke there. One that is not registered here may be again."""
    return {
        "supported": platform is None or platform.rules.revocation_supported,
        "ends_user_grant": platform is not None and platform.rules.revocation_ends_user_grant,
    }
