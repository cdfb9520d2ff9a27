"""Refreshing: keeps grants alive, spends each refresh token once, and calls no grant dead that is not.

The order is claim (durable), send once, persist first, then use. The generation fences, not the lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import timedelta

from server.accounts.errors import (
    GrantDead,
    NotSent,
    OurFault,
    OutcomeUnknown,
    PlatformError,
    PlatformRefused,
    StoreUnavailable,
)
from server.accounts.gate import Gate
from server.accounts.grants import ClaimedGrant, Commit, GrantState, Refreshed, Retry, to_refreshed
from server.accounts.model import StatusReason
from server.accounts.ports import Journal, Observer, Platform, Store
from server.accounts.timing import backoff, refresh_due_time, replay_time

log = logging.getLogger(__name__)

REGISTRATION_HOLD = timedelta(minutes=5)
"""How long a platform that refuses our registration is left alone before the next try."""

MOST_SENDS = 2
"""A refresh token of unknown fate is tried once more, never twice: a replay can end the whole grant."""

BATCH = 64
SAVE_AGAIN_SECONDS = 1.0

OUTCOMES = {Commit.STORED: "refreshed", Commit.REVOKING: "revoked", Commit.LOST: "overtaken"}


class Refresher:
    """Refreshes the grants that are due on the platforms registered here."""

    def __init__(
        self,
        store: Store,
        platforms: Mapping[str, Platform],
        gates: Mapping[str, Gate],
        journal: Journal,
        observer: Observer,
        *,
        owner: str,
        lease: timedelta,
        min_interval: timedelta,
    ) -> None:
        self._store = store
        self._platforms = platforms
        self._gates = gates
        self._journal = journal
        self._observer = observer
        self._owner = owner
        self._lease = lease
        self._min_interval = min_interval
        self._refreshes: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._replaying = asyncio.Lock()

    async def work_off(self, platform_id: str) -> int:
        """Refreshes what is due on one platform until nothing is, or its gate is held; how many were begun."""
        if not await self.replay():
            return 0
        gate = self._gates[platform_id]
        begun = await self._store.expire_ended(platform_id, limit=BATCH)
        while not self._stopping and (room := await gate.room()) > 0:
            claimed = await self._store.claim_due(platform_id, owner=self._owner, lease=self._lease, limit=room)
            for grant in claimed:
                gate.enter()
                task = asyncio.create_task(self._one(grant, gate))
                self._refreshes.add(task)
                task.add_done_callback(self._refreshes.discard)
            begun += len(claimed)
            if not claimed:
                break
        return begun

    async def replay(self) -> bool:
        """Brings what the journal holds into the database; says whether that is all of it.

        Nothing is claimed before: a grant whose newest token set is still in the journal must not be refreshed.
        """
        async with self._replaying:
            try:
                for name, refreshed in await self._journal.entries() if self._journal.depth else ():
                    try:
                        commit = await self._store.commit_refresh(refreshed)
                    except StoreUnavailable:
                        raise
                    except Exception:
                        log.exception("a journal entry cannot be stored; it stays", extra={"entry": name})
                        continue
                    await self._journal.erase(name)
                    log.warning("a token set came in from the journal", extra={"outcome": OUTCOMES[commit]})
            except (StoreUnavailable, OSError) as error:
                log.error("the journal cannot be replayed; nothing is claimed", extra={"why": str(error)})
                return False
            return True

    async def run_once(self) -> int:
        """One whole round over all platforms, waited for to its end; how many refreshes were begun."""
        begun = sum([await self.work_off(platform_id) for platform_id in self._platforms])
        await self.settled()
        return begun

    async def settled(self) -> None:
        """Waits for the refreshes under way."""
        while self._refreshes:
            await asyncio.gather(*self._refreshes, return_exceptions=True)

    def stop(self) -> None:
        """Claims nothing any more; what was sent goes on."""
        self._stopping = True

    async def _one(self, grant: ClaimedGrant, gate: Gate) -> None:
        began = time.monotonic()
        try:
            outcome = await self._refresh(grant)
        except StoreUnavailable as error:
            outcome = "not_stored"
            log.error("refresh not recorded", extra={"grant_id": grant.id, "why": error.text})
        except Exception:
            outcome = "fault"
            log.exception("refresh failed", extra={"grant_id": grant.id, "platform": grant.platform})
        finally:
            gate.leave()
        seconds = time.monotonic() - began
        self._observer.refreshed(grant.platform, outcome, seconds, grant.claim_time - grant.due_time)
        log.info(
            "refresh",
            extra={
                "grant_id": grant.id,
                "platform": grant.platform,
                "outcome": outcome,
                "attempt": grant.attempts + 1,
                "duration": round(seconds, 4),
            },
        )

    async def _refresh(self, grant: ClaimedGrant) -> str:
        platform = self._platforms[grant.platform]
        single_use = platform.rules.refresh_token_single_use
        if single_use and grant.found is GrantState.SENT:
            await self._wait_for_replay(grant, "its lease ran out before an answer was stored", spent=False)
            return "interrupted"
        if single_use and grant.sends >= MOST_SENDS:
            return await self._give_up(grant, StatusReason.REFRESH_OUTCOME_LOST, "no answer came, twice")
        try:
            token_set = await platform.refresh(grant.token_set)
        except GrantDead as error:
            lost = single_use and grant.sends > 0
            reason = StatusReason.REFRESH_OUTCOME_LOST if lost else StatusReason.REFRESH_REJECTED
            return await self._give_up(grant, reason, error.text)
        except OutcomeUnknown as error:
            return await self._unknown(grant, error, single_use)
        except PlatformError as error:
            return await self._later(grant, error)
        due_time = refresh_due_time(grant.id, token_set, await self._store.now(), self._min_interval)
        return await self._save(to_refreshed(grant, token_set, due_time))

    async def _save(self, refreshed: Refreshed) -> str:
        """Persist first: into the database, else into the journal; and nothing gives up before one has it."""
        while True:
            try:
                return OUTCOMES[await self._store.commit_refresh(refreshed)]
            except Exception as error:
                # Whatever is wrong with the database, what it did not take is kept elsewhere.
                log.error("the database does not take a token set", extra={"why": type(error).__name__})
            try:
                await self._journal.keep(refreshed)
                return "journaled"
            except OSError as error:
                log.critical(
                    "a token set is in memory alone", extra={"grant_id": refreshed.grant_id, "why": str(error)}
                )
            await asyncio.sleep(SAVE_AGAIN_SECONDS)

    async def _give_up(self, grant: ClaimedGrant, reason: StatusReason, error: str) -> str:
        """The last resort of a dead grant is a pair that lost a swap; then it is dead."""
        if await self._store.use_candidate(grant):
            return "candidate"
        expired = await self._store.expire_grant(grant, reason, error=error)
        return "dead" if expired else "overtaken"

    async def _unknown(self, grant: ClaimedGrant, error: OutcomeUnknown, single_use: bool) -> str:
        if not single_use:
            return await self._later(grant, error)
        await self._wait_for_replay(grant, error.text, spent=True, reply=error.reply)
        return "unknown"

    async def _wait_for_replay(self, grant: ClaimedGrant, error: str, *, spent: bool, reply: bytes = b"") -> None:
        """The access token is served while it lives; shortly before its end the refresh token is tried once more.

        A second unknown outcome only waits for the access token's end.
        """
        now = await self._store.now()
        last = grant.sends + spent >= MOST_SENDS
        expire_time = grant.token_set.expire_time
        due_time = max(now, expire_time) if last and expire_time else replay_time(grant.token_set, now)
        retry = Retry(GrantState.UNKNOWN, due_time, spent=spent)
        while True:
            try:
                await self._store.release(grant, retry, error=error, reply=reply)
                return
            except StoreUnavailable:
                if not reply:
                    raise  # the lease ends by itself, to the same effect
            # An unreadable reply may hold the only live token: nothing gives it up before it is stored.
            await asyncio.sleep(SAVE_AGAIN_SECONDS)

    async def _later(self, grant: ClaimedGrant, error: PlatformError) -> str:
        """Nothing was spent: try again later, and leave the platform alone where it refuses us or asks for it.

        A request of one grant that it finds odd must not hold up the others.
        """
        gate = self._gates[grant.platform]
        retry_after = error.retry_after if isinstance(error, PlatformRefused) else None
        if isinstance(error, OurFault) and error.refuses_us:
            gate.hold(REGISTRATION_HOLD, f"the platform refuses our registration: {error.text}")
            log.error("platform held", extra={"platform": grant.platform, "why": error.text})
        elif retry_after is not None:
            gate.hold(retry_after, "the platform asked us to wait")
        state = GrantState.UNKNOWN if grant.sends else GrantState.READY
        due_time = await self._store.now() + backoff(grant.attempts, retry_after)
        retry = Retry(state, due_time, spent=False)
        await self._store.release(grant, retry, error=error.text)
        return {NotSent: "not_sent", OurFault: "our_fault"}.get(type(error), "refused")
