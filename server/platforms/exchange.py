"""The code exchange, by requests-oauthlib: a fresh session for each, in a few threads, within a deadline.

Its answers are read by `oauth` before oauthlib sees them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import requests
from oauthlib.oauth2 import OAuth2Error, WebApplicationClient
from requests_oauthlib import OAuth2Session
from urllib3.exceptions import HTTPError

from server.accounts.errors import NotSent, OurFault, OutcomeUnknown
from server.accounts.grants import TokenSet
from server.accounts.model import Secret
from server.platforms import oauth
from server.platforms.deadline import DeadlineAdapter
from server.platforms.definition import ClientAuth, OAuth2Platform, Pkce
from server.platforms.http import CONNECT_SECONDS
from server.platforms.messages import HttpReply
from server.platforms.registration import Registration


class Read(Exception):
    """Carries a finished reading out of fetch_token: there is nothing left for oauthlib to parse."""

    def __init__(self, token_set: TokenSet) -> None:
        self.token_set = token_set


def quiet_libraries() -> None:
    """Pins the loggers that show tokens, codes and URLs at DEBUG. Done before each use, whatever was set since."""
    for loud in ("requests_oauthlib", "requests_oauthlib.oauth2_session", "oauthlib", "urllib3"):
        logging.getLogger(loud).setLevel(logging.WARNING)


def fresh_session(registration: Registration, redirect_uri: str, scopes: Sequence[str] | None = None) -> OAuth2Session:
    """A session for one use, which no `.netrc` and no proxy variable has a part in."""
    quiet_libraries()
    session = OAuth2Session(registration.client_id, redirect_uri=redirect_uri, scope=scopes and list(scopes))
    session.trust_env = False
    session.max_redirects = 0
    return session


def authorization_url(
    definition: OAuth2Platform,
    registration: Registration,
    *,
    redirect_uri: str,
    scopes: Sequence[str],
    state: Secret,
    code_verifier: Secret,
) -> str:
    """The URL for the browser, with a S256 challenge where the platform takes one (RFC 7636 section 4.3)."""
    challenge = {}
    if definition.pkce is Pkce.S256:
        made = WebApplicationClient("").create_code_challenge(code_verifier.reveal(), "S256")
        challenge = {"code_challenge": made, "code_challenge_method": "S256"}
    with fresh_session(registration, redirect_uri, scopes) as session:
        endpoint = registration.endpoints(definition).authorization
        url, _ = session.authorization_url(endpoint, state=state.reveal(), **challenge)
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
    """Runs in a thread, for at most `seconds`; `now` is when it begins.

    Raises GrantDead when the code is refused, else NotSent, PlatformRefused, OurFault, OutcomeUnknown.
    """
    adapter = DeadlineAdapter(seconds)
    verifier: dict[str, Any] = {"code_verifier": code_verifier.reveal()} if definition.pkce is Pkce.S256 else {}
    in_form = definition.client_auth is ClientAuth.POST
    secrets = oauth.secrets_sent(registration, code, code_verifier)

    def read(response: requests.Response) -> requests.Response:
        reply = HttpReply(response.status_code, response.content, {k.lower(): v for k, v in response.headers.items()})
        raise Read(oauth.read_exchange(definition, reply, scopes, now, secrets))

    try:
        # Without scope: oauthlib raises a Warning when other scopes are granted than asked.
        with fresh_session(registration, redirect_uri) as session:
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            session.register_compliance_hook("access_token_response", read)
            session.fetch_token(
                token_endpoint,
                code=code.reveal(),
                include_client_id=in_form,
                client_secret=registration.client_secret.reveal() if in_form else None,
                auth=lambda request: request,  # ours is in the headers: requests does not form-encode the pair
                headers=oauth.form_headers(definition, registration),
                timeout=(min(CONNECT_SECONDS, seconds / 2), seconds),
                **verifier,
            )
    except Read as done:
        return done.token_set
    except OAuth2Error as error:
        # Before anything is sent: a token endpoint without https.
        raise OurFault(f"the exchange was not made: {type(error).__name__}") from None
    except (requests.RequestException, HTTPError, OSError) as error:
        kind = type(error).__name__
        if adapter.deadline.connected:
            raise OutcomeUnknown(f"no answer to the exchange: {kind}") from None
        raise NotSent(f"the exchange was not sent: {kind}") from None
    raise OutcomeUnknown("the exchange brought nothing")
