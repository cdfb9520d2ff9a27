"""The code exchange, by requests-oauthlib: a fresh session for each, in a few threads, within a deadline.

Its answers are read by `oauth` before oauthlib sees them. A total deadline is enforced by closing the socket: the
timeouts of requests are per read, and a drip of a byte a second outlives them.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import requests
from oauthlib.oauth2 import WebApplicationClient
from requests.adapters import HTTPAdapter
from requests_oauthlib import OAuth2Session
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from server.accounts.errors import NotSent, OutcomeUnknown, PlatformError
from server.accounts.model import Secret, TokenSet
from server.platforms import oauth
from server.platforms.definition import OAuth2Platform
from server.platforms.http import CONNECT_SECONDS, LARGEST_REPLY
from server.platforms.messages import HttpReply
from server.platforms.registration import Registration

for _loud in ("requests_oauthlib", "oauthlib", "urllib3"):
    # They log tokens, codes and URLs at DEBUG.
    logging.getLogger(_loud).setLevel(logging.WARNING)


class Read(Exception):
    """Carries a finished reading out of fetch_token: there is nothing left for oauthlib to parse."""

    def __init__(self, token_set: TokenSet) -> None:
        self.token_set = token_set


def authorization_url(
    definition: OAuth2Platform,
    registration: Registration,
    *,
    redirect_uri: str,
    scopes: Sequence[str],
    state: Secret,
    code_verifier: Secret,
) -> str:
    """The URL for the browser, with a S256 challenge (RFC 7636 section 4.3)."""
    with OAuth2Session(registration.client_id, redirect_uri=redirect_uri, scope=list(scopes)) as session:
        challenge = WebApplicationClient("").create_code_challenge(code_verifier.reveal(), "S256")
        url, _ = session.authorization_url(
            registration.endpoints(definition).authorization,
            state=state.reveal(),
            code_challenge=challenge,
            code_challenge_method="S256",
        )
        return str(url)


def exchange_code(
    definition: OAuth2Platform,
    registration: Registration,
    *,
    token_endpoint: str,
    code: Secret,
    code_verifier: Secret,
    redirect_uri: str,
    scopes: Sequence[str],
    now: datetime,
    seconds: float,
) -> TokenSet:
    """Runs in a thread. Raises GrantDead when the code is refused, else NotSent, PlatformRefused, OurFault,
    OutcomeUnknown."""
    fields: Any
    headers, fields = oauth.client_credentials(definition, registration)
    adapter = DeadlineAdapter(seconds)

    def read(response: requests.Response) -> requests.Response:
        reply = HttpReply(response.status_code, response.content, {k.lower(): v for k, v in response.headers.items()})
        raise Read(oauth.read_exchange(definition, reply, scopes, now))

    try:
        # Without scope: oauthlib raises a Warning when other scopes are granted than asked.
        with OAuth2Session(registration.client_id, redirect_uri=redirect_uri) as session:
            session.trust_env = False
            session.max_redirects = 0
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            session.register_compliance_hook("access_token_response", read)
            session.fetch_token(
                token_endpoint,
                code=code.reveal(),
                code_verifier=code_verifier.reveal(),
                include_client_id=False,
                auth=lambda request: request,  # ours is in the headers: requests does not form-encode the pair
                headers={**oauth.FORM, **headers},
                timeout=(min(CONNECT_SECONDS, seconds), seconds),
                **fields,
            )
    except Read as done:
        return done.token_set
    except PlatformError:
        raise
    except (requests.RequestException, HTTPError, OSError) as error:
        kind = type(error).__name__
        if adapter.connected:
            raise OutcomeUnknown(f"no answer to the exchange: {kind}") from None
        raise NotSent(f"the exchange was not sent: {kind}") from None
    raise OutcomeUnknown("the exchange brought nothing")


class DeadlineAdapter(HTTPAdapter):
    """One request within a total deadline, never redirected, its body at most 64 KiB."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._sockets: list[socket.socket] = []
        super().__init__(max_retries=0)

    @property
    def connected(self) -> bool:
        """Whether a byte can have been sent."""
        return bool(self._sockets)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = watched_pools(self._sockets)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        timer = threading.Timer(self._seconds, self._cut_off)
        timer.daemon = True
        timer.start()
        try:
            response = super().send(request, **{**options, "stream": True})
            body = response.raw.read(LARGEST_REPLY + 1, decode_content=True)
            if len(body) > LARGEST_REPLY:
                raise OutcomeUnknown("the reply is too large", status=response.status_code)
            response._content = body  # requests has no other way to cap a body
            if response.is_redirect:
                # fetch_token has no switch for redirects; without a Location there is nothing to follow.
                response.headers.pop("location")
            return response
        finally:
            timer.cancel()
            self._close()

    def _cut_off(self) -> None:
        for each in self._sockets:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def _close(self) -> None:
        self.poolmanager.clear()


def watched_pools(sockets: list[socket.socket]) -> dict[str, type[HTTPConnectionPool]]:
    """Connection pools whose connections put their sockets on a list, so that they can be cut off."""

    class PlainConnection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    class TlsConnection(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = PlainConnection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": PlainPool, "https": TlsPool}
