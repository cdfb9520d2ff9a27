"""One attempt at a claimed grant: sends its refresh token once, and takes every answer to its end.

Persist first, then use. The generation fences, not the lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from server.accounts.breaker import Breaker
from server.accounts.brownout import HOLD, BrownOutGuard
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
from server.accounts.grants import (
    ClaimedGrant,
    Commit,
    GrantState,
    Refreshed,
    Retry,
    TokenSet,
    UnreadReply,
    to_refreshed,
)
from server.accounts.model import StatusReason
from server.accounts.ports import Journal, Platform, Store
from server.accounts.time_limit import TimeLimit
from server.accounts.timing import backoff, refresh_due_time, replay_time

log = logging.getLogger(__name__)

T = TypeVar("T")

REGISTRATION_HOLD = timedelta(minutes=5)
"""How long a platform that refuses our registration is left alone before the next try."""

MOST_SENDS = 2
"""A refresh token of unknown fate is tried once more, never twice: a replay can end the whole grant."""

LAST_TRY_WAIT = timedelta(minutes=10)
"""How long the last try of a refresh token waits at least: a hiccup of the platform must not eat both."""

GRACE_SLACK = timedelta(seconds=5)
"""A retry within a platform's grace that could not be claimed for so long waits as if there were none."""

ASKED_TO_WAIT = "the platform asked us to wait"

SAVE_SECONDS = 5.0
"""How long an answer waits for the database before the journal has it: what hangs may do so until we are killed."""

SAVE_AGAIN_SECONDS = 1.0

JOURNALED = "journaled"
OUTCOMES = {Commit.STORED: "refreshed", Commit.REVOKING: "revoked", Commit.LOST: "overtaken"}


@dataclass(frozen=True, slots=True)
class RefreshLane:
    """The way to one platform: its port, its gate, and what sets the gate by the platform's answers."""

    platform: Platform
    gate: Gate
    breaker: Breaker
    guard: BrownOutGuard


class Attempts:
    """Takes claimed grants to an outcome. `verdict_limit` is how long a verdict may wait to be borne out."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        min_interval: timedelta,
        request_limit: timedelta,
        verdict_limit: timedelta,
    ) -> None:
        self._store = store
        self._journal = journal
        self._request_limit = request_limit
        self._min_interval = min_interval
        self._verdict_limit = verdict_limit
        self.unsaved: set[str] = set()
        """Grants whose answer is in memory alone. Their lease may be over when the database is back: claimed then, they
        would be sent once more, with a spent refresh token."""

    async def run(self, grant: ClaimedGrant, lane: RefreshLane) -> str:
        """What became of it, in a word for metrics and logs. Raises StoreUnavailable if that was not recorded."""
        now = await self._store.now()
        if outcome := await self._without_sending(grant, lane, now):
            return outcome
        begun_at = lane.gate.now()
        try:
            try:
                token_set = await self._send(grant, lane, begun_at)
            except GrantDead as error:
                return await self._dead(grant, lane, error.text)
            except OutcomeUnknown as error:
                return await self._unknown(grant, lane, error)
            except PlatformError as error:
                return await self._later(grant, lane, error)
            due_time = refresh_due_time(grant.id, token_set, now, self._min_interval)
            outcome = await self._save(to_refreshed(grant, token_set, due_time))
        finally:
            self.unsaved.discard(grant.id)
        lane.guard.refreshed(grant.id, begun_at)
        return outcome

    async def give_back(self, grant: ClaimedGrant, lane: RefreshLane) -> None:
        """Ends a claim that nobody began, if there is one. Raises StoreUnavailable."""
        await self._release(grant, lane, timedelta(), "not sent: the database did not answer its claim")

    async def _without_sending(self, grant: ClaimedGrant, lane: RefreshLane, now: datetime) -> str:
        """What becomes of a grant whose refresh token must not be sent now; empty if it may be."""
        if now + self._request_limit > grant.lease_expire_time:
            # This process stood still since its claim: another may take over meanwhile, and send this refresh token.
            await self._release(grant, lane, timedelta(), "not sent: the lease would not outlast the request")
            return "late"
        if why := lane.gate.held:
            await self._release(grant, lane, timedelta(), f"not sent: {why}")
            return "waits"
        if not lane.platform.rules.refresh_token_single_use:
            return ""
        if grant.found is GrantState.SENT:
            due_time = after_unknown(grant.token_set, now, grant.sends, least=timedelta())
            await self._wait_for_replay(grant, due_time, "its lease ran out before an answer was stored", spent=False)
            return "interrupted"
        return await self._without_retrying(grant, lane, now)

    async def _without_retrying(self, grant: ClaimedGrant, lane: RefreshLane, now: datetime) -> str:
        """What becomes of a grant whose refresh token must not be sent again."""
        missed_grace = grant.sends and grant.due_time + GRACE_SLACK < now
        if missed_grace and now < replay_time(grant.token_set, now, least=timedelta()):
            await self._release(grant, lane, timedelta(), "the platform's grace has passed; it waits for the retry")
            return "waits"
        if grant.sends >= MOST_SENDS:
            return await self._give_up(grant, StatusReason.REFRESH_OUTCOME_LOST, "no answer came, twice")
        return ""

    async def _send(self, grant: ClaimedGrant, lane: RefreshLane, begun_at: float) -> TokenSet:
        """Tells the breaker whether the platform said anything of the grant: that it is dead is as good as a token."""
        failed = False
        try:
            return await lane.platform.refresh(grant.token_set)
        except (NotSent, PlatformRefused, OurFault, OutcomeUnknown):
            failed = True
            raise
        finally:
            lane.breaker.saw(failed=failed, begun_at=begun_at)

    async def _save(self, refreshed: Refreshed) -> str:
        commit = await self._persist(refreshed, lambda: self._store.commit_refresh(refreshed))
        return JOURNALED if commit is None else OUTCOMES[commit]

    async def _persist(self, entry: Refreshed | UnreadReply, write: Callable[[], Awaitable[T]]) -> T | None:
        """Persist first: into the database, else into the journal; and nothing gives up before one has it.

        What `write` answers; None if the journal has it.
        """
        try:
            return await self._persisted(entry, write)
        except asyncio.CancelledError:
            # The process ends before the database has answered. Twice on disk does no harm, nowhere loses the grant.
            await self._journal.keep(entry)
            raise

    async def _persisted(self, entry: Refreshed | UnreadReply, write: Callable[[], Awaitable[T]]) -> T | None:
        while True:
            try:
                with TimeLimit(SAVE_SECONDS, StoreUnavailable("the database does not answer in time")):
                    return await write()
            except Exception as error:
                # Whatever is wrong with the database, what it did not take is kept elsewhere.
                log.error("the database does not take an answer", extra={"why": type(error).__name__})
            self.unsaved.add(entry.grant_id)
            try:
                await self._journal.keep(entry)
                return None
            except OSError as error:
                log.critical("an answer is in memory alone", extra={"grant_id": entry.grant_id, "why": str(error)})
            await asyncio.sleep(SAVE_AGAIN_SECONDS)

    async def _dead(self, grant: ClaimedGrant, lane: RefreshLane, error: str) -> str:
        """The platform calls the grant dead. While it is doubted the verdict waits, and the account stays as it is."""
        with lane.gate.stepping_aside():  # what waits to be borne out must not keep others from bearing it out
            stands = await lane.guard.stands(grant.id, grant.generation, self._verdict_limit)
        if stands:
            lost = lane.platform.rules.refresh_token_single_use and grant.sends > 0
            reason = StatusReason.REFRESH_OUTCOME_LOST if lost else StatusReason.REFRESH_REJECTED
            return await self._give_up(grant, reason, error)
        await self._release(grant, lane, HOLD, f"{error}; held: the platform calls too many grants dead")
        return "held"

    async def _give_up(self, grant: ClaimedGrant, reason: StatusReason, error: str) -> str:
        """The last resort of a dead grant is a pair that lost a swap; then it is dead."""
        if await self._store.use_candidate(grant):
            return "candidate"
        expired = await self._store.expire_grant(grant, reason, error=error)
        return "dead" if expired else "overtaken"

    async def _unknown(self, grant: ClaimedGrant, lane: RefreshLane, error: OutcomeUnknown) -> str:
        """The access token is served while it lives; shortly before its end the refresh token is tried once more, or
        at once within the platform's documented grace. A second unknown outcome only waits for the access token's end.
        """
        if not lane.platform.rules.refresh_token_single_use:
            return await self._later(grant, lane, error)
        if error.retry_after is not None:
            lane.gate.hold(error.retry_after, ASKED_TO_WAIT)
        now, sends = await self._store.now(), grant.sends + 1
        in_grace = error.retry_after is None and now < grant.claim_time + lane.platform.rules.replay_grace
        if in_grace and sends < MOST_SENDS:
            due_time = now
        else:
            least = max(LAST_TRY_WAIT, error.retry_after or timedelta())
            due_time = after_unknown(grant.token_set, now, sends, least=least)
        await self._wait_for_replay(grant, due_time, error.text, spent=True, reply=error.reply)
        return "unknown"

    async def _wait_for_replay(
        self, grant: ClaimedGrant, due_time: datetime, error: str, *, spent: bool, reply: bytes = b""
    ) -> None:
        """Where the database does not take that, the lease ends by itself, to the same effect."""
        retry = Retry(GrantState.UNKNOWN, due_time, spent=spent)
        if not reply:
            await self._store.release(grant, retry, error=error)
            return
        # An unreadable reply may hold the only live token.
        unread = UnreadReply(grant.id, grant.generation, reply)
        await self._persist(unread, lambda: self._store.release(grant, retry, error=error, reply=reply))

    async def _later(self, grant: ClaimedGrant, lane: RefreshLane, error: PlatformError) -> str:
        """Nothing was spent: try again later, and leave the platform alone where it refuses us or asks for it.

        A request of one grant that it finds odd must not hold up the others.
        """
        retry_after = error.retry_after if isinstance(error, PlatformRefused | OutcomeUnknown) else None
        if isinstance(error, OurFault) and error.refuses_us:
            why = f"the platform refuses our registration: {error.text}"
            lane.gate.hold(REGISTRATION_HOLD, why, pauses=True)
            log.error("platform held", extra={"platform": grant.platform, "why": error.text})
        elif retry_after is not None:
            lane.gate.hold(retry_after, ASKED_TO_WAIT)
        await self._release(grant, lane, backoff(grant.attempts, retry_after), error.text)
        return {NotSent: "not_sent", OurFault: "our_fault"}.get(type(error), "refused")

    async def _release(self, grant: ClaimedGrant, lane: RefreshLane, span: timedelta, error: str) -> None:
        """Gives the grant back as it was: its refresh token was not spent by this."""
        now = await self._store.now()
        retry = Retry(GrantState.READY, now + span, spent=False)
        if grant.sends and lane.platform.rules.refresh_token_single_use:
            # Within a grace or near the end of the access token it was tried again; what comes later is near the end.
            retry = Retry(GrantState.UNKNOWN, replay_time(grant.token_set, now + span, least=timedelta()), spent=False)
        await self._store.release(grant, retry, error=error)


def after_unknown(token_set: TokenSet, now: datetime, sends: int, *, least: timedelta) -> datetime:
    """When a grant comes up again whose refresh token was sent so often without a readable answer.

    Where it may be sent once more, as `replay_time` says; else when the access token ends, which is served until then.
    """
    if sends < MOST_SENDS:
        return replay_time(token_set, now, least=least)
    return now if token_set.expire_time is None else max(now, token_set.expire_time)
