"""Connecting: begins authorization requests and completes them for the caller and profile that began.

PKCE and state do not stop session fixation; that only the beginning caller, for the beginning profile, completes does.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from server.accounts.callers import Caller
from server.accounts.errors import (
    AccountNotFound,
    CallerNotPermitted,
    ConnectRefused,
    InvalidField,
    PlatformPaused,
    RateLimited,
    Reason,
    UnknownPlatform,
)
from server.accounts.exchange import Exchanger, refusal
from server.accounts.flow import (
    EXCHANGE_LIMIT,
    OUTCOME_KEPT,
    AuthorizationRequest,
    AuthorizationResponse,
    Begun,
    Phase,
)
from server.accounts.gate import Gate
from server.accounts.model import Account, PlatformRules, Secret
from server.accounts.ports import NewId, Platform, Store

REQUEST_LIFETIME = timedelta(minutes=10)
POLL_SECONDS = 0.05
CROWDED_WAIT = timedelta(minutes=1)
PENDING_OF_PROFILE = 100
"""Connects of one profile that have not ended: more than anybody has browsers open."""


class Connector:
    """The two ends of a connect that callers see: BeginConnect and CompleteConnect."""

    def __init__(
        self,
        store: Store,
        platforms: Mapping[str, Platform],
        gates: Mapping[str, Gate],
        exchanger: Exchanger,
        new_id: NewId,
        callback_uri: Callable[[str], str],
    ) -> None:
        self._store = store
        self._platforms = platforms
        self._gates = gates
        self._exchanger = exchanger
        self._new_id = new_id
        self._callback_uri = callback_uri
        self._looking: dict[str, asyncio.Task[tuple[Account, ...]]] = {}

    async def begin(
        self,
        caller: Caller,
        *,
        profile_id: str,
        platform: str,
        scopes: tuple[str, ...],
        return_url: str | None,
        redirect_uri: str | None,
        account_id: str | None,
    ) -> Begun:
        """Stores an authorization request and returns the URL for the user's browser.

        Raises UnknownPlatform, InvalidField, CallerNotPermitted, AccountNotFound, PlatformPaused, RateLimited.
        """
        speaks = self._platform(platform)
        admit(caller, profile_id, platform)
        check_ending(caller, return_url, redirect_uri)
        asked = asked_scopes(scopes, speaks.rules)
        if account_id is not None:
            await self._check_reconnect(caller, account_id, profile_id, platform)
        if why := self._gates[platform].paused:
            raise PlatformPaused(platform, why)
        now = await self._store.now()
        state, code_verifier = new_secret(), new_secret()
        request = AuthorizationRequest(
            id=self._new_id(),
            state_hash=hashed(state),
            caller=caller.name,
            profile_id=profile_id,
            platform=platform,
            account_id=account_id,
            scopes=asked,
            redirect_uri=redirect_uri or self._callback_uri(platform),
            return_url=return_url,
            caller_redirects=redirect_uri is not None,
            endpoints=speaks.endpoints,
            code_verifier=code_verifier,
            create_time=now,
            expire_time=now + REQUEST_LIFETIME,
            phase_time=now,
        )
        url = speaks.authorization_url(
            redirect_uri=request.redirect_uri, scopes=asked, state=state, code_verifier=code_verifier
        )
        crowded = await self._store.add_request(
            request, of_caller=caller.limits.pending_connects, of_profile=PENDING_OF_PROFILE
        )
        if crowded:
            text = f"too many connects of this {crowded} were begun and have not ended"
            limit = "pending_connects" if crowded == "caller" else "pending_connects_of_profile"
            raise RateLimited(text, CROWDED_WAIT, limit=limit)
        return Begun(connect_id=request.id, authorization_url=url, expire_time=request.expire_time)

    async def complete(
        self,
        caller: Caller,
        *,
        profile_id: str,
        completion_code: Secret | None,
        response: AuthorizationResponse | None,
    ) -> tuple[Account, ...]:
        """The accounts that the connect brought; exactly one of `completion_code` and `response` is given.

        Raises ConnectRefused; CallerNotPermitted for what the caller may not see any more; UnknownPlatform for one that
        is not in the configuration any more; and RateLimited, with nothing done, when too many calls wait for the
        platform. The same answer comes again for ten minutes.
        """
        request = await self._find(completion_code, response)
        if (request.caller, request.profile_id) != (caller.name, profile_id) or (
            request.caller_redirects != (response is not None)
        ):
            raise await self._burnt(request)
        admit(caller, request.profile_id, request.platform)
        if request.phase in (Phase.DONE, Phase.FAILED):
            return await self._outcome(request.id)
        self._platform(request.platform)  # it may have been taken out of the configuration since
        accounts: tuple[Account, ...] | None = None
        if response is not None and request.phase is Phase.BEGUN:
            accounts = await self._respond(request, response)
        elif completion_code is not None and request.phase is Phase.ANSWERED and request.code is not None:
            await self._check_age(request, Phase.ANSWERED)
            accounts = await self._exchanger.exchange(request, request.code, expected=Phase.ANSWERED)
        if accounts is not None:
            return accounts
        with self._gates[request.platform].waiting(request.platform, caller.name):
            return await self._outcome(request.id)

    def _platform(self, platform: str) -> Platform:
        if platform not in self._platforms:
            raise UnknownPlatform(platform, tuple(sorted(self._platforms)))
        return self._platforms[platform]

    async def _check_reconnect(self, caller: Caller, account_id: str, profile_id: str, platform: str) -> None:
        account = await self._store.account(account_id)
        if account is None or not caller.sees(account):
            raise AccountNotFound(account_id)
        if account.profile_id != profile_id:
            raise InvalidField("account_id", "the account belongs to another profile")
        if account.platform != platform:
            raise InvalidField("account_id", f"the account is on {account.platform}")

    async def _find(
        self, completion_code: Secret | None, response: AuthorizationResponse | None
    ) -> AuthorizationRequest:
        find: Callable[[bytes], Awaitable[AuthorizationRequest | None]]
        if response is not None:
            find, secret = self._store.request_by_state, response.state
        elif completion_code is not None:
            find, secret = self._store.request_by_completion_code, completion_code
        else:
            raise InvalidField("answer", "completion_code or authorization_response is required")
        request = await find(hashed(secret))
        if request is None or await self._forgotten(request):
            raise ConnectRefused(Reason.CONNECT_NOT_FOUND, "there is no such connect; begin again")
        return request

    async def _forgotten(self, request: AuthorizationRequest) -> bool:
        ended = request.phase in (Phase.DONE, Phase.FAILED)
        return ended and request.phase_time + OUTCOME_KEPT <= await self._store.now()

    async def _burnt(self, request: AuthorizationRequest) -> ConnectRefused:
        refused = refusal(
            request,
            Reason.CONNECT_MISMATCH,
            "this connect was begun by another caller, for another profile, or to end in another way",
        )
        await self._exchanger.fail(request, refused, Phase.BEGUN, Phase.ANSWERED)
        return refused

    async def _check_age(self, request: AuthorizationRequest, phase: Phase) -> None:
        ends = request.completion_expire_time if phase is Phase.ANSWERED else request.expire_time
        if ends is not None and ends <= await self._store.now():
            refused = refusal(request, Reason.CONNECT_EXPIRED, "the connect was answered too late; begin again")
            await self._exchanger.fail(request, refused, phase)
            raise refused

    async def _respond(
        self, request: AuthorizationRequest, response: AuthorizationResponse
    ) -> tuple[Account, ...] | None:
        await self._check_age(request, Phase.BEGUN)
        if issuer_matches(request, response.iss) and response.code and not response.error:
            return await self._exchanger.exchange(request, response.code, expected=Phase.BEGUN)
        refused = mix_up(request)
        if issuer_matches(request, response.iss):
            refused = denial(request, response.error, self._platforms[request.platform].rules)
        await self._exchanger.fail(request, refused, Phase.BEGUN)
        raise refused

    async def _outcome(self, connect_id: str) -> tuple[Account, ...]:
        """Waits for the exchange that somebody else runs, here or in another process; all who wait look as one."""
        looking = self._looking.get(connect_id)
        if looking is None:
            looking = self._looking[connect_id] = asyncio.create_task(self._look(connect_id))
            looking.add_done_callback(lambda _: self._looking.pop(connect_id))
        return await asyncio.shield(looking)

    async def _look(self, connect_id: str) -> tuple[Account, ...]:
        while True:
            request = await self._store.request(connect_id)
            if request is None:
                raise ConnectRefused(Reason.CONNECT_NOT_FOUND, "there is no such connect; begin again")
            if request.phase is Phase.DONE:
                return await self._store.accounts(request.account_ids)
            if request.failure is not None:
                failure = request.failure
                raise refusal(request, Reason(failure.reason), failure.text, **failure.facts)
            if request.phase_time + EXCHANGE_LIMIT <= await self._store.now():
                refused = refusal(request, Reason.CONNECT_FAILED, "the exchange never ended; begin again")
                await self._exchanger.fail(request, refused, Phase.EXCHANGING)
            await asyncio.sleep(POLL_SECONDS)


def new_secret() -> Secret:
    """256 random bits as 43 URL-safe characters: a state, a code verifier (RFC 7636 section 4.1), a completion code."""
    return Secret(secrets.token_urlsafe(32))


def hashed(secret: Secret) -> bytes:
    return hashlib.sha256(secret.reveal().encode()).digest()


def admit(caller: Caller, profile_id: str, platform: str) -> None:
    if not caller.sees_profile(profile_id):
        raise CallerNotPermitted(f"caller {caller.name} may not use this profile_id", field="profile_id")
    if not caller.sees_platform(platform):
        raise CallerNotPermitted(f"caller {caller.name} may not use this platform", field="platform")


def check_ending(caller: Caller, return_url: str | None, redirect_uri: str | None) -> None:
    """How the flow ends must be one of the ways that the caller's configuration names, exactly."""
    if return_url is not None and redirect_uri is not None:
        raise InvalidField("return_url", "give return_url or redirect_uri, not both")
    if return_url is not None and return_url not in caller.return_urls:
        raise InvalidField(
            "return_url", "it is not one of this caller's registered return_urls, character by character"
        )
    if redirect_uri is not None and redirect_uri not in caller.redirect_uris:
        raise InvalidField(
            "redirect_uri", "it is not one of this caller's registered redirect_uris, character by character"
        )
    if return_url is None and redirect_uri is None and not caller.allow_shim_completion:
        raise InvalidField("return_url", "return_url or redirect_uri is required")


def asked_scopes(scopes: tuple[str, ...], rules: PlatformRules) -> tuple[str, ...]:
    """The platform's defaults, or those given plus the required ones. Raises InvalidField for one not allowed."""
    if not scopes:
        return rules.default_scopes
    for scope in scopes:
        if scope not in rules.allowed_scopes:
            allowed = ", ".join(sorted(rules.allowed_scopes))
            raise InvalidField("scopes", f"{scope!r} is not allowed for {rules.id}; allowed: {allowed}")
    return tuple(dict.fromkeys((*scopes, *rules.required_scopes)))


def issuer_matches(request: AuthorizationRequest, iss: str) -> bool:
    """RFC 9207 section 2.4: `iss` must be the pinned issuer where one is promised, and absent where none is."""
    return iss == request.endpoints.issuer


def mix_up(request: AuthorizationRequest) -> ConnectRefused:
    return refusal(
        request, Reason.CONNECT_FAILED, "the answer came from another platform than the connect was begun at"
    )


def denial(request: AuthorizationRequest, error: str, rules: PlatformRules) -> ConnectRefused:
    """What an authorization response with an `error`, or without a code, means."""
    if error in rules.denied_errors:
        return refusal(request, Reason.USER_DENIED, f"the user declined at {rules.display_name}")
    name = error if error.isascii() and error.isprintable() else "invalid"
    return refusal(request, Reason.CONNECT_FAILED, f"{rules.display_name} answered with an error", error=name[:64])
