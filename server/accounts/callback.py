"""The callback: what happens when a platform sends the user's browser back to us.

The callback alone never attaches an account, or an attacker could let a victim finish the attacker's connect (session
fixation). It parks the code and sends the browser on to the caller's web app, which knows who is logged in. Only
callers whose configuration says so let it complete by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import urlencode, urlsplit, urlunsplit

from server.accounts.blocks import Blocks
from server.accounts.callers import Caller, Permission
from server.accounts.connect import admit, check_ending, denial, hashed, issuer_matches, mix_up, new_secret
from server.accounts.errors import (
    AccountError,
    CallerNotPermitted,
    ConnectRefused,
    RateLimited,
    Reason,
    StoreUnavailable,
)
from server.accounts.exchange import Exchanger
from server.accounts.flow import AuthorizationRequest, AuthorizationResponse, Phase, ResultPage, SendBrowser, ShowPage
from server.accounts.model import Secret
from server.accounts.ports import Platform, Store

log = logging.getLogger(__name__)

RFC_ERRORS = frozenset(
    {
        "invalid_request",
        "unauthorized_client",
        "access_denied",
        "unsupported_response_type",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
    }
)
"""RFC 6749 section 4.1.2.1."""


class Callback:
    """Answers authorization responses that browsers bring to our own redirect URI."""

    def __init__(
        self,
        store: Store,
        platforms: Mapping[str, Platform],
        exchanger: Exchanger,
        callers: Mapping[str, Caller],
        blocks: Blocks,
    ) -> None:
        self._store = store
        self._callers = callers
        self._blocks = blocks
        self._platforms = platforms
        self._exchanger = exchanger

    async def answer(self, platform_id: str, response: AuthorizationResponse) -> ShowPage | SendBrowser:
        """What the browser gets. An unknown, expired or used state changes nothing and looks the same."""
        request = await self._store.awaited_request(hashed(response.state))
        if request is None:
            return ShowPage(ResultPage.EXPIRED)
        try:
            self._check_caller(request)
        except AccountError as why:
            # Nothing is used up: an operator may lift a block, and other processes may have another configuration.
            log.warning("callback for a caller that may not", extra={"connect_id": request.id, "why": why.text})
            return ShowPage(ResultPage.FAILED)
        if platform_id != request.platform or not issuer_matches(request, response.iss):
            return await self._refuse(request, mix_up(request), "server_error")
        if response.error or not response.code:
            refused = denial(request, response.error, self._platforms[request.platform].rules)
            denied = refused.reason is Reason.USER_DENIED
            return await self._refuse(request, refused, "access_denied" if denied else response.error)
        if request.return_url is not None:
            return await self._park(request, request.return_url, response.code)
        return await self._complete(request, response.code)

    def _check_caller(self, request: AuthorizationRequest) -> None:
        """What was allowed when the connect began must be so still. Raises CallerNotPermitted, InvalidField."""
        caller = self._callers.get(request.caller)
        if caller is None or Permission.CONNECT not in caller.permissions:
            raise CallerNotPermitted(f"caller {request.caller} may not connect any more")
        self._blocks.check(caller.name)
        admit(caller, request.profile_id, request.platform)
        check_ending(caller, request.return_url, None)

    async def _refuse(
        self, request: AuthorizationRequest, refused: ConnectRefused, error: str
    ) -> ShowPage | SendBrowser:
        await self._exchanger.fail(request, refused, Phase.BEGUN)
        if request.return_url is not None:
            told = error if error in RFC_ERRORS else "server_error"
            return SendBrowser(with_query(request.return_url, connect_id=request.id, error=told))
        return ShowPage(ResultPage.DENIED if refused.reason is Reason.USER_DENIED else ResultPage.FAILED)

    async def _park(self, request: AuthorizationRequest, return_url: str, code: Secret) -> ShowPage | SendBrowser:
        completion_code = new_secret()
        lifetime: timedelta = self._platforms[request.platform].rules.code_lifetime
        parked = await self._store.answer_request(
            request.id,
            code=code,
            completion_code_hash=hashed(completion_code),
            completion_expire_time=await self._store.now() + lifetime,
        )
        if not parked:
            return ShowPage(ResultPage.EXPIRED)
        return SendBrowser(with_query(return_url, connect_id=request.id, completion_code=completion_code.reveal()))

    async def _complete(self, request: AuthorizationRequest, code: Secret) -> ShowPage:
        try:
            accounts = await self._exchanger.exchange(request, code, expected=Phase.BEGUN)
        except StoreUnavailable:
            raise
        except (ConnectRefused, RateLimited) as refused:
            log.info("shim completion failed", extra={"connect_id": request.id, "reason": refused.reason})
            return ShowPage(ResultPage.FAILED)
        return ShowPage(ResultPage.EXPIRED if accounts is None else ResultPage.CONNECTED)


def with_query(url: str, **parameters: str) -> str:
    """`url` with parameters added after those it has."""
    parts = urlsplit(url)
    query = "&".join(part for part in (parts.query, urlencode(parameters)) if part)
    return urlunsplit(parts._replace(query=query))
