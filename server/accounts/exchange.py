"""The exchange: turns an authorization code into accounts, once, and leaves nothing live behind when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta

from server.accounts.blocks import Blocks
from server.accounts.errors import (
    ConnectRefused,
    GrantDead,
    OurFault,
    PlatformError,
    Reason,
)
from server.accounts.flow import AuthorizationRequest, Failure, Phase
from server.accounts.gate import Gate
from server.accounts.grants import NewGrant, TokenSet
from server.accounts.model import Account, Identity, Secret
from server.accounts.ports import NewId, Observer, Platform, Store
from server.accounts.timing import refresh_due_time

log = logging.getLogger(__name__)


def refusal(request: AuthorizationRequest, reason: Reason, text: str, **facts: str) -> ConnectRefused:
    return ConnectRefused(reason, text, connect_id=request.id, **facts)


def given_up(request: AuthorizationRequest) -> ConnectRefused:
    return refusal(request, Reason.CONNECT_FAILED, "the connect took too long and was given up; begin again")


class Exchanger:
    """Runs exchanges to their end, whoever stops waiting for them."""

    def __init__(
        self,
        store: Store,
        platforms: Mapping[str, Platform],
        gates: Mapping[str, Gate],
        blocks: Blocks,
        observer: Observer,
        new_id: NewId,
        *,
        min_interval: timedelta,
    ) -> None:
        self._store = store
        self._platforms = platforms
        self._gates = gates
        self._blocks = blocks
        self._observer = observer
        self._new_id = new_id
        self._min_interval = min_interval
        self._running: dict[str, asyncio.Task[tuple[Account, ...] | None]] = {}

    async def exchange(
        self, request: AuthorizationRequest, code: Secret, *, expected: Phase
    ) -> tuple[Account, ...] | None:
        """The accounts that the code brought, or None if somebody else has begun this exchange.

        Raises ConnectRefused with the reason that is recorded for everyone who asks later. While the platform is
        paused, or too many are under way (RateLimited), nothing is recorded, and the connect can still be completed
        afterwards.
        """
        if why := self._gates[request.platform].paused:
            text = f"{request.platform} is paused: {why}"
            raise refusal(request, Reason.PLATFORM_PAUSED, text, platform=request.platform)
        if running := self._running.get(request.id):
            with self._gates[request.platform].waiting(request.platform, request.caller):
                await asyncio.shield(running)
            return None
        # The start too runs in the task: it erases the code, so nobody may give up between the two.
        task = self._running[request.id] = asyncio.create_task(self._run(request, code, expected))
        task.add_done_callback(lambda _: self._running.pop(request.id))
        return await asyncio.shield(task)

    async def drain(self) -> None:
        """Waits for the exchanges under way."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def fail(self, request: AuthorizationRequest, refused: ConnectRefused, *expected: Phase) -> None:
        """Records why the connect failed, unless it has left the `expected` phases meanwhile."""
        facts = {name: value for name, value in refused.facts.items() if name != "connect_id"}
        failure = Failure(refused.reason, refused.text, facts)
        if await self._store.fail_request(request.id, failure, expected=expected):
            self._observer.connected(request.platform, refused.reason.lower())
            log.info("connect failed", extra={"connect_id": request.id, "reason": refused.reason})

    async def _run(self, request: AuthorizationRequest, code: Secret, expected: Phase) -> tuple[Account, ...] | None:
        with self._gates[request.platform].exchanging(request.platform, request.caller):
            if not await self._store.start_exchange(request.id, expected=expected):
                return None
            try:
                accounts = await self._bring(request, code)
            except ConnectRefused as refused:
                await self.fail(request, refused, Phase.EXCHANGING)
                raise
        self._observer.connected(request.platform, "connected")
        return accounts

    async def _bring(self, request: AuthorizationRequest, code: Secret) -> tuple[Account, ...]:
        platform = self._platforms[request.platform]
        token_set = await self._redeem(platform, request, code)
        try:
            # Should we die from here on, the sweep finds the tokens with the request and revokes them.
            kept = await self._store.keep_exchanged(request, token_set)
        except Exception:
            await self._give_back(platform, request, token_set)
            raise
        if not kept:
            raise given_up(request)
        identities = await self._identify(platform, request, token_set)
        await self._check_reconnect(request, identities)
        grant = await self._grant(request, token_set, identities)
        if self._blocks.blocks(request.caller):
            raise refusal(request, Reason.CALLER_NOT_PERMITTED, "an operator has blocked this caller meanwhile")
        accounts = await self._store.complete_request(request, grant)
        if accounts is None:
            raise given_up(request)
        return accounts

    async def _redeem(self, platform: Platform, request: AuthorizationRequest, code: Secret) -> TokenSet:
        try:
            return await platform.exchange(
                endpoints=request.endpoints,
                code=code,
                code_verifier=request.code_verifier,
                redirect_uri=request.redirect_uri,
                scopes=request.scopes,
            )
        except GrantDead as error:
            raise refusal(
                request, Reason.CODE_REFUSED, f"{platform.rules.display_name} refused the code; begin again"
            ) from error
        except OurFault as error:
            log.error("the platform refuses our registration", extra={"platform": request.platform, "why": error.text})
            raise refusal(
                request, Reason.CONNECT_FAILED, f"{platform.rules.display_name} refused the request", error=error.error
            ) from error
        except PlatformError as error:
            raise refusal(
                request,
                Reason.PLATFORM_UNAVAILABLE,
                f"{platform.rules.display_name} did not answer properly; begin again",
                platform=request.platform,
            ) from error

    async def _identify(
        self, platform: Platform, request: AuthorizationRequest, token_set: TokenSet
    ) -> tuple[Identity, ...]:
        try:
            return await platform.identify(token_set, request.endpoints)
        except PlatformError as error:
            log.warning("identity not read", extra={"platform": request.platform, "why": error.text})
            raise refusal(
                request,
                Reason.IDENTITY_UNAVAILABLE,
                f"{platform.rules.display_name} did not say who granted access; the grant is being revoked",
                platform=request.platform,
            ) from error

    async def _check_reconnect(self, request: AuthorizationRequest, identities: tuple[Identity, ...]) -> None:
        if request.account_id is None:
            return
        account = await self._store.account(request.account_id)
        if account is None or account.platform_user_id not in {who.platform_user_id for who in identities}:
            raise refusal(
                request,
                Reason.WRONG_PLATFORM_USER,
                "the user came back as another platform user; nothing was changed and the new grant is being revoked",
                account_id=request.account_id,
            )

    async def _grant(
        self, request: AuthorizationRequest, token_set: TokenSet, identities: tuple[Identity, ...]
    ) -> NewGrant:
        now = await self._store.now()
        grant_id = self._new_id()
        return NewGrant(
            id=grant_id,
            token_set=token_set,
            identities=identities,
            missing_scopes=tuple(sorted(set(request.scopes) - set(token_set.scopes))),
            due_time=refresh_due_time(grant_id, token_set, now, self._min_interval),
            identity_due_time=now + self._platforms[request.platform].rules.identity_interval,
        )

    async def _give_back(self, platform: Platform, request: AuthorizationRequest, token_set: TokenSet) -> None:
        """The database takes nothing, so the new tokens cannot be kept: they must not stay live either."""
        for token in (token_set.refresh_token, token_set.access_token):
            try:
                if token:
                    await platform.revoke(token, request.endpoints.revocation)
            except PlatformError as error:
                log.error("a grant that could not be stored could not be revoked", extra={"why": error.text})
