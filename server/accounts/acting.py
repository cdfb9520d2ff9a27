"""Acting: one request on an account's behalf, from what the caller may to what became of it.

The order is check (nothing is sent), fresh token, record (durable), send once, tell. A request that changes something
is sent again in one case alone: the platform refused its token with 401, so it was not carried out.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from server.accounts.background import Background
from server.accounts.bulkhead import Places
from server.accounts.callers import Caller, Permission
from server.accounts.calls import AnswerWithheld, Api, ApiAnswer, ApiCall, PreparedCall, Use
from server.accounts.errors import (
    CallerNotPermitted,
    CallOutcomeUnknown,
    MissingScope,
    NothingSent,
    NotSent,
    OutcomeUnknown,
    PlatformPaused,
    RateLimited,
    ResponseWithheld,
    TimeOver,
)
from server.accounts.fresh import FreshTokens, check_usable, reconnect
from server.accounts.gate import Gate
from server.accounts.grants import AtHand, TokenSet
from server.accounts.model import Account
from server.accounts.ports import NewId, Observer, Store
from server.accounts.rate_limits import RateLimits
from server.accounts.read import Reader
from server.accounts.routes import SAFE, Route
from server.accounts.time_limit import TimeLimit
from server.accounts.use_records import UseRecords

log = logging.getLogger(__name__)

MARGIN_SECONDS: Final = 0.1
"""A call ends so long before its caller's deadline: after that nobody is left to tell the outcome."""
IN_VAIN_SECONDS: Final = 900.0
"""How long a grant's 401 is taken at its word after a refresh did not help: each refresh is a risk to the grant."""
MOST_IN_VAIN: Final = 10_000
LONGEST_ASKED: Final = timedelta(minutes=15)
"""How long any caller may ask the token to live. Who asks for more can force refreshes, and needs `refresh` for it."""
UNAUTHORIZED, TOO_MANY, FAILED = 401, 429, 400


@dataclass(frozen=True, slots=True)
class CallLane:
    """One platform: what may be sent to it, how many at once, and the gate that operators close."""

    api: Api
    places: Places
    gate: Gate


@dataclass(slots=True)
class UnderWay:
    """A call that has been let through, and how far it has come."""

    caller: Caller
    call: ApiCall
    account: Account
    at_hand: AtHand
    lane: CallLane
    route: Route
    prepared: PreparedCall
    until: float
    """When its time is over, on the monotonic clock of asyncio."""
    use: Use | None = None
    """What was recorded of it; None before, and once it is recorded how it ended."""
    at_platform: bool = False
    """Whether it may be carried out right now."""
    answered: int = 0
    """The status that the platform answered with last; 0 where it has not."""

    @property
    def left(self) -> float:
        return self.until - time.monotonic()


class Actor:
    """Sends requests on accounts' behalf. `now` is a monotonic clock in seconds; `lanes` are the platforms."""

    def __init__(
        self,
        store: Store,
        reader: Reader,
        fresh: FreshTokens,
        lanes: Mapping[str, CallLane],
        observer: Observer,
        new_id: NewId,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._reader = reader
        self._fresh = fresh
        self._lanes = lanes
        self._observer = observer
        self._now = now
        self._background = Background()
        self._records = UseRecords(store, new_id, self._background)
        self._limits = RateLimits()
        self._in_vain: OrderedDict[str, float] = OrderedDict()

    async def call(self, caller: Caller, call: ApiCall, left: float | None) -> ApiAnswer:
        """The platform's answer, whatever its status. `left` is what the caller's deadline leaves, in seconds.

        Before anything is sent it raises AccountNotFound, CallerNotPermitted, InvalidField, AccountExpired,
        AccountRevoked, MissingScope, PlatformPaused, PlatformUnavailable, RateLimited, StoreUnavailable, TimeOver.
        After that NothingSent, CallOutcomeUnknown, ResponseWithheld; TimeOver where it may simply be repeated.
        """
        seconds = call.timeout.total_seconds()
        until = time.monotonic() + (seconds if left is None else min(seconds, left - MARGIN_SECONDS))
        with TimeLimit(until - time.monotonic(), TimeOver("the account was not found in time; nothing was sent")):
            account, at_hand = await self._reader.get_at_hand(caller, call.account_id)
        one = self._let_through(caller, call, account, at_hand, until)
        if call.refuse_if_limited:
            await self._refuse_if_limited(one)
        task = self._background.begin(self._run(one))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # What may be changing something goes on: cut off, nobody would know what became of it.
            if call.method in SAFE or not one.at_platform:
                task.cancel()
            raise

    async def drain(self) -> None:
        """Waits for what goes on though its caller is gone."""
        await self._background.drain()

    # --- before anything is sent

    def _let_through(self, caller: Caller, call: ApiCall, account: Account, at_hand: AtHand, until: float) -> UnderWay:
        platform = account.platform
        route = caller.route(platform, call.method, call.segments)
        if route is None:
            text = f"no route of this caller lets it send this {call.method} to {platform}"
            raise CallerNotPermitted(text, permission=Permission.ACT, field="path")
        if call.min_remaining_lifetime > LONGEST_ASKED and Permission.REFRESH not in caller.permissions:
            text = f"more than {LONGEST_ASKED.total_seconds():.0f} s needs the permission {Permission.REFRESH.value}"
            raise CallerNotPermitted(text, permission=Permission.REFRESH, field="min_remaining_lifetime")
        lane = self._lanes.get(platform)
        if lane is None:
            raise PlatformPaused(platform, "it is not registered here any more")
        prepared = lane.api.prepare(call)
        check_usable(account)
        check_scopes(account, prepared)
        check_not_paused(platform, lane)
        return UnderWay(caller, call, account, at_hand, lane, route, prepared, until)

    async def _refuse_if_limited(self, one: UnderWay) -> None:
        account = one.account
        wait = self._limits.wait(account.platform, account.id, one.prepared.route, await self._store.now())
        if wait > timedelta():
            raise RateLimited(f"{account.platform} would refuse it: its limit is used up", wait, limit="platform")

    # --- from the token to the answer

    async def _run(self, one: UnderWay) -> ApiAnswer:
        began = time.monotonic()
        outcome = "refused"
        try:
            crowded = f"too many calls to {one.account.platform} are under way already"
            with one.lane.places.place(one.caller.name, crowded):
                answer = await self._sent(one)
            outcome = f"{answer.status // 100}xx"
            return answer
        except (NothingSent, TimeOver):
            outcome = "not_sent" if not one.at_platform else "unknown"
            raise
        except CallOutcomeUnknown:
            outcome = "unknown"
            raise
        except ResponseWithheld:
            outcome = "withheld"
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            self._end_cancelled(one)
            raise
        finally:
            self._observer.acted(one.account.platform, one.call.method, outcome, time.monotonic() - began)

    async def _sent(self, one: UnderWay) -> ApiAnswer:
        token_set = await self._made_ready(one)
        answer = await self._send(one, token_set)
        if answer.status == UNAUTHORIZED:
            another = await self._another_token_set(one, token_set)
            if another is not None and one.left > 0:
                answer = await self._send(one, another)
                if answer.status == UNAUTHORIZED:
                    await self._remember_in_vain(one, another)
        if answer.withheld:
            use_id = await self._ended(one, "withheld", answer.status)
            raise ResponseWithheld(one.account.platform, use_id, answer.status, answer.withheld)
        if answer.status >= FAILED:
            await self._ended(one, "answered", answer.status)
        return answer

    async def _made_ready(self, one: UnderWay) -> TokenSet:
        """The token to send it with; from now on it is recorded that it is about to be sent."""
        with TimeLimit(one.left, TimeOver("no fresh token or no record of it came in time; nothing was sent")):
            lifetime = one.call.min_remaining_lifetime
            token_set = await self._fresh.token_set(one.account, lifetime, one.caller.name, one.at_hand)
            check_not_paused(one.account.platform, one.lane)
            one.use = await self._records.begin(one.caller, one.account, one.route)
        return token_set

    async def _send(self, one: UnderWay, token_set: TokenSet) -> ApiAnswer:
        platform = one.account.platform
        if one.left <= 0:
            await self._ended(one, "not_sent")
            raise TimeOver("no time was left to send it")
        one.at_platform = True
        try:
            answer = await one.prepared.send(token_set, timedelta(seconds=one.left))
        except NotSent as error:
            one.at_platform = False
            await self._ended(one, "not_sent")
            raise NothingSent(platform, f"{error.text}; nothing was sent") from None
        except AnswerWithheld as error:
            answer = ApiAnswer(error.http_status, (), b"", withheld=error.why)
        except OutcomeUnknown as error:
            raise unknown(one, await self._ended(one, "unknown"), error.text) from None
        except Exception:
            log.exception("a call failed after it was sent", extra={"platform": platform})
            raise unknown(one, await self._ended(one, "unknown"), "the service failed to read the answer") from None
        one.at_platform, one.answered = False, answer.status
        await self._note_limits(one, answer)
        return answer

    async def _another_token_set(self, one: UnderWay, refused: TokenSet) -> TokenSet | None:
        """What to send it once more with; None if the platform's 401 is the answer.

        A 401 may be late: everything is read again before anything is made of it.
        """
        try:
            with TimeLimit(one.left, TimeOver("nothing newer came in time")):
                account, another = await self._fresh.newer(one.account, refused)
                if another is None and not self._is_in_vain(account):
                    account, another = await self._fresh.another(account, refused, one.caller.name)
                one.account = account
                if another is not None:
                    check_scopes(account, one.prepared)
                    check_not_paused(account.platform, one.lane)
                return another
        except TimeOver:
            return None
        except Exception:
            await self._ended(one, "answered", UNAUTHORIZED)
            raise

    def _is_in_vain(self, account: Account) -> bool:
        return self._now() < self._in_vain.get(account.grant_id, -math.inf)

    async def _remember_in_vain(self, one: UnderWay, refused: TokenSet) -> None:
        """Unless that token was replaced or taken back meanwhile as well: then its 401 says nothing of the newest."""
        try:
            with TimeLimit(one.left, TimeOver("nobody knows in time")):
                account, another = await self._fresh.newer(one.account, refused)
        except TimeOver:
            return
        except Exception:
            await self._ended(one, "answered", UNAUTHORIZED)
            raise
        if another is not None:
            return
        self._in_vain[account.grant_id] = self._now() + IN_VAIN_SECONDS
        self._in_vain.move_to_end(account.grant_id)
        if len(self._in_vain) > MOST_IN_VAIN:
            self._in_vain.popitem(last=False)

    # --- what is told afterwards

    async def _note_limits(self, one: UnderWay, answer: ApiAnswer) -> None:
        refused_for = answer.retry_after if answer.status == TOO_MANY else None
        counted = (one.account.platform, one.account.id, one.prepared.route)
        if refused_for is not None or self._limits.learns_from(*counted, answer.rate_limits):
            self._limits.told(*counted, answer.rate_limits, refused_for, await self._store.now())

    def _end_cancelled(self, one: UnderWay) -> None:
        if one.use is None:
            return
        if one.at_platform:
            self._records.end(one.use, "cancelled")
        elif one.answered:
            self._records.end(one.use, "answered", one.answered)
        else:
            self._records.end(one.use, "not_sent")

    async def _ended(self, one: UnderWay, result: str, status: int = 0) -> str:
        """Records how it ended, once; the id of the use."""
        use, one.use = one.use, None
        assert use is not None, "what ends was recorded"  # noqa: S101
        await self._records.ended(use, result, status)
        return use.id


def check_scopes(account: Account, prepared: PreparedCall) -> None:
    """Raises MissingScope."""
    missing = [scope for scope in prepared.scopes if scope not in account.scopes]
    if missing:
        raise MissingScope(missing, reconnect(account, *missing))


def check_not_paused(platform: str, lane: CallLane) -> None:
    """Raises PlatformPaused."""
    if lane.gate.paused:
        raise PlatformPaused(platform, lane.gate.paused)


def unknown(one: UnderWay, use_id: str, why: str) -> Exception:
    """What the caller is told of a request that was sent, and that no readable answer came to."""
    if one.call.method not in SAFE:
        return CallOutcomeUnknown(one.account.platform, use_id, why)
    if one.left <= MARGIN_SECONDS:
        return TimeOver("the platform did not answer in time; the request changes nothing, so it may be repeated")
    return NothingSent(one.account.platform, f"{why}; the request changes nothing, so it may be repeated")
