"""The pretend platform as one process sees it: fulfils the domain's `Platform` port over the ledger, with faults."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from server.accounts.errors import GrantDead, NotSent, OurFault, OutcomeUnknown, PlatformRefused, TokenRejected
from server.accounts.flow import Endpoints
from server.accounts.grants import TokenSet
from server.accounts.model import Identity, Secret
from tests.accounts.script import RULES
from tests.faults.simulation.fate import DONE_ALL_THE_SAME, REFUSED, Fault
from tests.faults.simulation.ledger import Arrival, Pair

if TYPE_CHECKING:
    from tests.faults.simulation.process import Process
    from tests.faults.simulation.world import World

LIMIT_SECONDS = 20.0
"""The time limit of a request: a third of the lease."""

SCOPES = RULES.default_scopes


class SimulatedPlatform:
    """Each request goes there, has its effect or not, and comes back or not, whatever becomes of who sent it."""

    def __init__(self, world: "World", process: "Process") -> None:
        self.rules = world.rules
        self.endpoints = Endpoints("https://x.test/a", "https://x.test/t", "https://x.test/r", "https://x.test/me", "")
        self._world = world
        self._process = process

    def authorization_url(self, *, state: Secret, **_: Any) -> str:
        return f"https://x.test/a?state={state.reveal()}"

    async def exchange(self, *, code: Secret, **_: Any) -> TokenSet:
        world = self._world
        pair = await self._ask("exchange", lambda: world.ledger.consent(code.reveal(), world.loop.time()))
        return self._hand_over(pair)

    async def refresh(self, token_set: TokenSet) -> TokenSet:
        assert token_set.refresh_token is not None
        world, token = self._world, token_set.refresh_token.reveal()
        spent = world.ledger.tokens[token]
        arrivals: list[Arrival] = []

        def act() -> Pair | None:
            [arrival] = arrivals
            arrival.brought = world.ledger.refresh(token, world.loop.time())
            brought = f"brings pair {arrival.brought.number}" if arrival.brought else f"refused; {spent.grant.ended_by}"
            world.judge.note(f"pair {spent.number} arrives and {brought}", spent.grant)
            return arrival.brought

        def sending(fault: Fault) -> None:
            world.judge.note(f"{self._process.owner} sends pair {spent.number}: {fault.value}", spent.grant)
            arrivals.append(world.judge.sent(spent, self._process.owner, effect=fault not in REFUSED))

        pair = await self._ask("refresh", act, sending)
        arrivals[0].heard = True
        if pair is None:
            raise GrantDead("Value passed for the token was invalid.", status=400)
        return self._hand_over(pair)

    async def identify(self, token_set: TokenSet, endpoints: Endpoints | None = None) -> tuple[Identity, ...]:
        world, token = self._world, token_set.access_token.reveal()
        accepted = await self._ask("identify", lambda: world.ledger.accepts(token, world.loop.time()))
        if not accepted:
            raise TokenRejected("401", status=401)
        user = world.ledger.tokens[token].grant.user
        return (Identity(user, f"handle-of-{user}"),)

    async def revoke(self, token: Secret, endpoint: str) -> None:
        await self._ask("revoke", lambda: self._world.ledger.revoke(token.reveal()))

    def _hand_over(self, pair: Pair) -> TokenSet:
        self._process.take(pair)
        world = self._world
        expire_time = world.clock() + timedelta(seconds=world.life_seconds)
        return TokenSet(Secret(pair.access), Secret(pair.refresh), expire_time, SCOPES)

    async def _ask(self, kind: str, act: Callable[[], Any], sending: Callable[[Fault], None] | None = None) -> Any:
        world, loop = self._world, self._world.loop
        await self._process.moment()
        fault = world.weather.strikes(kind)
        if fault is Fault.NOT_SENT:
            raise NotSent("connect refused")
        if sending is not None:
            sending(fault)
        answer = loop.create_future()
        there, back = world.fate.there_and_back(fault)

        def arrive() -> None:
            result = act() if fault in DONE_ALL_THE_SAME else None
            loop.call_later(back, answer.set_result, result)

        loop.call_later(there, arrive)
        await asyncio.wait({answer}, timeout=LIMIT_SECONDS)
        in_time = answer.done()
        await self._process.step()
        return self._read(kind, fault, answer.result() if in_time else None, in_time=in_time)

    def _read(self, kind: str, fault: Fault, result: Any, *, in_time: bool) -> Any:
        if not in_time or fault in (Fault.LOST_BEFORE, Fault.LOST_AFTER, Fault.LATE):
            raise OutcomeUnknown("no answer")
        if fault in (Fault.DOWN_BEFORE, Fault.DOWN_AFTER):
            raise OutcomeUnknown("503", status=503)
        if fault is Fault.UNREADABLE and kind != "revoke":
            raise OutcomeUnknown("unreadable", status=200, reply=b"<html>" + repr(result).encode()[:200])
        if fault is Fault.CLIENT_REFUSED:
            raise OurFault("who are you?", status=401, error="invalid_client")
        if fault in REFUSED:
            wait = timedelta(seconds=self._world.fate.retry_after()) if fault is Fault.BUSY_UNTIL else None
            raise PlatformRefused("429", status=429, retry_after=wait)
        return result


class Weather:
    """Which fault strikes which request: single ones at random, and storms in which most requests fare alike."""

    def __init__(self, world: "World", storms: Sequence[tuple[float, float, Fault]]) -> None:
        self._world = world
        self._storms = storms

    def strikes(self, kind: str) -> Fault:
        fate, now = self._world.fate, self._world.loop.time()
        for begin, end, fault in self._storms:
            if begin <= now < end and fate.happens(0.95):
                return fault
        return fate.single_fault()
