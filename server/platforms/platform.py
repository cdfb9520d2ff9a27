"""A platform as registered here: fulfils the domain's `Platform` port with the pieces beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from server.accounts.errors import OutcomeUnknown, PlatformError
from server.accounts.flow import Endpoints
from server.accounts.gate import MOST_EXCHANGES
from server.accounts.grants import TokenSet
from server.accounts.model import Identity, PlatformRules, Secret
from server.accounts.timing import IDENTITY_TIMEOUT, TOKEN_TIMEOUT
from server.platforms import exchange, oauth
from server.platforms.definition import OAuth2Platform, Rotation
from server.platforms.http import Sender
from server.platforms.messages import HttpReply
from server.platforms.registration import Registration


class RegisteredPlatform:
    """See `server.accounts.ports.Platform` for what each method promises. `now` gives aware UTC time."""

    def __init__(
        self,
        definition: OAuth2Platform,
        registration: Registration,
        sender: Sender,
        now: Callable[[], datetime],
        *,
        token_timeout: timedelta = TOKEN_TIMEOUT,
    ) -> None:
        self._definition = definition
        self._registration = registration
        self._sender = sender
        self._now = now
        self._token_timeout = token_timeout
        self._threads = ThreadPoolExecutor(MOST_EXCHANGES, thread_name_prefix=f"exchange-{definition.id}")
        self.endpoints = registration.endpoints(definition)
        self.rules = to_rules(definition, self.endpoints)

    def authorization_url(
        self, *, redirect_uri: str, scopes: Sequence[str], state: Secret, code_verifier: Secret
    ) -> str:
        return exchange.authorization_url(
            self._definition,
            self._registration,
            redirect_uri=redirect_uri,
            scopes=scopes,
            state=state,
            code_verifier=code_verifier,
        )

    async def exchange(
        self, *, endpoints: Endpoints, code: Secret, code_verifier: Secret, redirect_uri: str, scopes: Sequence[str]
    ) -> TokenSet:
        work = partial(
            exchange.exchange_code,
            self._definition,
            self._registration,
            token_endpoint=endpoints.token,
            code=code,
            code_verifier=code_verifier,
            redirect_uri=redirect_uri,
            scopes=scopes,
            now=self._now(),
            seconds=self._token_timeout.total_seconds(),
        )
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def refresh(self, token_set: TokenSet) -> TokenSet:
        if token_set.refresh_token is None:
            raise ValueError("a token set without refresh token is not refreshed")
        request = oauth.refresh_request(
            self._definition, self._registration, token_set.refresh_token, self.endpoints.token
        )
        now = self._now()  # before it is sent: a slow answer must not make the expiry late
        try:
            reply = await self._sender.send(request, self._token_timeout)
        except OutcomeUnknown as error:
            # An object says itself where it ends: the only live pair may have come whole before the connection broke.
            reply = HttpReply(error.status or 0, error.reply)
            if oauth.granted(reply) is None:
                raise
        return oauth.read_refresh(self._definition, self._registration, reply, token_set, now)

    def read_again(self, reply: Secret, token_set: TokenSet) -> TokenSet | None:
        now = self._now()
        again = HttpReply(200, reply.reveal().encode())
        try:
            read = oauth.read_refresh(self._definition, self._registration, again, token_set, now)
        except PlatformError:
            return None
        return replace(read, expire_time=None if read.expire_time is None else now)

    async def identify(self, token_set: TokenSet, endpoints: Endpoints | None = None) -> tuple[Identity, ...]:
        endpoint = (endpoints or self.endpoints).identity
        request = oauth.identity_request(self._definition, token_set.access_token, endpoint)
        reply = await self._sender.send(request, IDENTITY_TIMEOUT)
        return oauth.read_identity(self._definition, reply, self._now())

    async def revoke(self, token: Secret, endpoint: str) -> None:
        request = oauth.revoke_request(self._definition, self._registration, token, endpoint)
        reply = await self._sender.send(request, IDENTITY_TIMEOUT)
        oauth.read_revoke(self._definition, self._registration, reply, token, self._now())

    async def close(self) -> None:
        """Lets go of the threads; the sender is its owner's to close."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def to_rules(definition: OAuth2Platform, endpoints: Endpoints) -> PlatformRules:
    return PlatformRules(
        id=definition.id,
        display_name=definition.display_name,
        default_scopes=definition.default_scopes,
        required_scopes=definition.required_scopes,
        allowed_scopes=definition.allowed_scopes,
        code_lifetime=definition.code_lifetime,
        default_access_token_lifetime=definition.default_access_token_lifetime,
        refresh_token_single_use=definition.rotation is not Rotation.NONE,
        replay_grace=definition.replay_grace,
        revocation_supported=bool(endpoints.revocation),
        revocation_ends_user_grant=definition.revocation_ends_user_grant,
        identity_interval=definition.identity_interval,
        denied_errors=definition.denied_errors,
    )
