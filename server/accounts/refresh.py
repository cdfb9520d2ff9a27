"""Refreshing: claims what is due, platform by platform, and sees every attempt to its end.

The order is claim (durable), send once, persist first, then use.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta

from server.accounts.attempt import OUTCOMES, Attempts, RefreshLane
from server.accounts.breaker import Breaker
from server.accounts.brownout import PROBES, BrownOutGuard
from server.accounts.errors import StoreUnavailable
from server.accounts.gate import Gate
from server.accounts.grants import ClaimedGrant, GrantRecord, GrantState, Refreshed, UnreadReply
from server.accounts.ports import Journal, Observer, Platform, Store
from server.accounts.timing import token_timeout

log = logging.getLogger(__name__)

BATCH = 64
LOOK_AGAIN_SECONDS = 0.05
NOT_STORED = "not_stored"


class Refresher:
    """Refreshes the grants of the platforms registered here: when they are due, and when somebody asks."""

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
        self._lanes = {name: self._lane(platform, gates[name]) for name, platform in platforms.items()}
        self._journal = journal
        self._observer = observer
        self._owner = owner
        self._lease = lease
        self._min_interval = min_interval
        # A token request takes a third of a lease at most, and a verdict may wait for another.
        self._attempts = Attempts(
            store, journal, min_interval=min_interval, request_limit=token_timeout(lease), verdict_limit=lease / 3
        )
        self._under_way: dict[str, asyncio.Task[str]] = {}
        """The newest of each grant, for those who ask for it."""
        self._running: set[asyncio.Task[str]] = set()
        self._claiming: set[str] = set()
        self._unstorable: set[str] = set()
        self._stopping = False
        self._replaying = asyncio.Lock()

    async def work_off(self, platform_id: str) -> int:
        """Refreshes what is due on one platform until nothing is, or its gate is held; how many were begun."""
        if not await self.can_store():
            return 0
        lane = self._lanes[platform_id]
        begun = await self._probe(platform_id, lane) if lane.guard.to_probe else 0
        begun += await self._store.expire_ended(platform_id, limit=BATCH)
        self._claiming.add(platform_id)
        try:
            while (room := await lane.gate.room()) > 0:
                with lane.gate.claiming(room):
                    # What went to the journal since the last claim is stored first: it comes up when its lease ends.
                    if not await self.can_store():
                        break
                    claimed = await self._claim_due(platform_id, room, first_sends_only=lane.gate.probing)
                    if not claimed and lane.breaker.risks_a_last_try():
                        claimed = await self._claim_due(platform_id, 1)
                begun += len(claimed)
                for grant in claimed:
                    self._begin(grant, lane)
                if not claimed:
                    break
                # A long backlog must not keep from being told what ended meanwhile.
                begun += await self._store.expire_ended(platform_id, limit=BATCH)
        finally:
            self._claiming.discard(platform_id)
            lane.guard.settle()
        return begun

    async def on_demand(self, grant: GrantRecord, caller: str) -> str:
        """Refreshes one grant now, before what is due; what became of it, when that has ended one way or another.

        Everybody who asks for the same grant shares one attempt, and who finds that another process has it waits for
        what comes of that. Whoever stops waiting stops nothing. It does nothing while the gate is held, within
        `min_interval` of the last refresh, and for a grant whose retry is not due yet. Raises RateLimited when too many
        wait already.
        """
        with ExitStack() as place:
            place.enter_context(self._lanes[grant.platform].gate.waiting(grant.platform, caller))
            attempt = self._under_way.get(grant.id)
            if attempt is None:
                # The attempt takes the place over: it goes on when the call has ended.
                attempt = asyncio.create_task(self._demand(grant, caller, place.pop_all()))
                self._keep(grant.id, attempt)
            return await asyncio.shield(attempt)

    async def can_store(self) -> bool:
        """Whether what a platform will answer can be kept, and what it answered is; nothing is claimed otherwise."""
        if self._attempts.unsaved:
            return False
        try:
            await self._journal.make_ready()
        except OSError as error:
            log.error("the journal cannot be written; nothing is claimed", extra={"why": str(error)})
            return False
        try:
            # A claim whose commit is not answered may count as a send that never was: a write without harm goes first.
            await self._store.try_writing()
            await self._give_back()
        except StoreUnavailable as error:
            log.error("the database takes no writes; nothing is claimed", extra={"why": error.text})
            return False
        return await self.replay()

    async def replay(self) -> bool:
        """Brings what the journal holds into the database; says whether that is all of it.

        Nothing is claimed before: a grant whose newest token set is still in the journal must not be refreshed.
        """
        async with self._replaying:
            try:
                for name, entry in await self._journal.entries() if self._journal.depth else ():
                    try:
                        outcome = await self._bring_in(entry)
                    except StoreUnavailable:
                        raise
                    except Exception:
                        if name not in self._unstorable:
                            log.exception("a journal entry cannot be stored; it stays", extra={"entry": name})
                        self._unstorable.add(name)
                        continue
                    await self._journal.erase(name)
                    log.warning("an answer came in from the journal", extra={"outcome": outcome})
            except (StoreUnavailable, OSError) as error:
                log.error("the journal cannot be replayed; nothing is claimed", extra={"why": str(error)})
                return False
            return True

    async def _bring_in(self, entry: Refreshed | UnreadReply) -> str:
        if isinstance(entry, UnreadReply):
            await self._store.keep_unread(entry)
            return "unknown"
        return OUTCOMES[await self._store.commit_refresh(entry)]

    async def _give_back(self) -> None:
        """Ends claims that were not answered: after two of them a grant that was never sent would be called lost."""
        while self._store.in_doubt:
            grant = self._store.in_doubt.pop()
            try:
                await self._attempts.give_back(grant, self._lanes[grant.platform])
            except (StoreUnavailable, asyncio.CancelledError):
                self._store.in_doubt.append(grant)
                raise

    async def run_once(self) -> int:
        """One whole round over all platforms, waited for to its end; how many refreshes were begun."""
        begun = sum([await self.work_off(platform_id) for platform_id in self._lanes])
        await self.settled()
        return begun

    async def settled(self) -> None:
        """Waits for the refreshes under way."""
        while self._running:
            await asyncio.wait(list(self._running))

    def resume(self, platform_id: str) -> None:
        """An operator says: go on. Ends every hold on a platform; verdicts that were held stand."""
        lane = self._lanes[platform_id]
        lane.breaker.close()
        lane.guard.bear_out()
        lane.gate.resume()

    def stop(self) -> None:
        """Claims nothing any more; what was sent goes on, but no verdict waits to be borne out."""
        self._stopping = True
        for lane in self._lanes.values():
            lane.gate.close()
            lane.guard.stop()

    def _lane(self, platform: Platform, gate: Gate) -> RefreshLane:
        def alone() -> bool:
            return platform.rules.id not in self._claiming and not gate.in_flight

        return RefreshLane(platform, gate, Breaker(gate), BrownOutGuard(gate, alone))

    async def _claim_due(self, platform_id: str, limit: int, *, first_sends_only: bool = False) -> list[ClaimedGrant]:
        return await self._store.claim_due(
            platform_id, owner=self._owner, lease=self._lease, limit=limit, first_sends_only=first_sends_only
        )

    async def _claim(
        self, grant_ids: tuple[str, ...], *, min_interval: timedelta | None = None, caller: str = ""
    ) -> list[ClaimedGrant]:
        return await self._store.claim_grants(
            grant_ids, owner=self._owner, lease=self._lease, min_interval=min_interval, caller=caller
        )

    def _begin(self, grant: ClaimedGrant, lane: RefreshLane) -> asyncio.Task[str]:
        lane.gate.enter()
        task = asyncio.create_task(self._one(grant, lane))
        self._keep(grant.id, task)
        return task

    def _keep(self, grant_id: str, task: asyncio.Task[str]) -> None:
        def forget(ended: asyncio.Task[str]) -> None:
            self._running.discard(ended)
            if self._under_way.get(grant_id) is ended:
                del self._under_way[grant_id]

        self._under_way[grant_id] = task
        self._running.add(task)
        task.add_done_callback(forget)

    async def _demand(self, grant: GrantRecord, caller: str, place: ExitStack) -> str:
        lane = self._lanes[grant.platform]
        with place:
            if not await lane.gate.turn():
                return "held"
            claimed: list[ClaimedGrant] | None = None
            try:
                claimed = await self._claim_on_demand(grant, lane, caller)
            finally:
                if not claimed:
                    lane.gate.leave()
                    lane.guard.settle()
            if claimed:
                return await self._one(claimed[0], lane)
            if claimed is None:
                return NOT_STORED
            await self._winner(grant)
            return "overtaken"

    async def _claim_on_demand(self, grant: GrantRecord, lane: RefreshLane, caller: str) -> list[ClaimedGrant] | None:
        """None if what comes could not be stored."""
        if grant.sends and lane.gate.probing and not lane.breaker.risks_a_last_try():
            return []
        try:
            if await self.can_store():
                return await self._claim((grant.id,), min_interval=self._min_interval, caller=caller)
        except StoreUnavailable as error:
            log.warning("nothing is claimed on demand", extra={"why": error.text})
        return None

    async def _winner(self, grant: GrantRecord) -> None:
        """Waits until whoever holds the lease has stored what came, for as long as a lease at most."""
        until = time.monotonic() + self._lease.total_seconds()
        while time.monotonic() < until and not self._stopping:
            now = await self._store.grant(grant.id)
            if now is None or now.generation != grant.generation or now.state is not GrantState.SENT:
                return
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _probe(self, platform_id: str, lane: RefreshLane) -> int:
        """Asks a few held grants and a few others, to learn whether the platform's verdicts can be trusted again."""
        asked = lane.guard.to_probe
        claimed = await self._claim(tuple(asked))
        for grant_id in asked.keys() - {grant.id for grant in claimed}:
            await self._forget_if_over(lane, grant_id, asked[grant_id])
        if not claimed:
            lane.guard.wait()
            return 0
        held = [self._begin(grant, lane) for grant in claimed]
        others = [self._begin(grant, lane) for grant in await self._claim_due(platform_id, PROBES)]
        outcomes = await asyncio.gather(*held, *others)
        lane.guard.probed(
            held_lives="refreshed" in outcomes[: len(held)], others_refresh="refreshed" in outcomes[len(held) :]
        )
        return len(outcomes)

    async def _forget_if_over(self, lane: RefreshLane, grant_id: str, generation: int) -> None:
        """A held grant that another process refreshes right now stays held.

        One that has moved on does not, nor one whose seal does not open: the platform would be held for it for ever.
        """
        grant = await self._store.grant(grant_id)
        if grant is None or grant.generation != generation or grant.state is not GrantState.SENT:
            lane.guard.forget(grant_id)

    async def _one(self, grant: ClaimedGrant, lane: RefreshLane) -> str:
        began = time.monotonic()
        try:
            outcome = await self._attempts.run(grant, lane)
        except StoreUnavailable as error:
            outcome = NOT_STORED
            log.error("refresh not recorded", extra={"grant_id": grant.id, "why": error.text})
        except Exception:
            outcome = "fault"
            log.exception("refresh failed", extra={"grant_id": grant.id, "platform": grant.platform})
        finally:
            lane.gate.leave()
            lane.guard.settle()
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
        return outcome
