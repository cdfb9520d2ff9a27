"""OAuth without I/O: what to send, and what an answer means. Plain functions of bytes.

oauthlib builds the bodies; what an answer means we read ourselves: oauthlib takes
X's dead grant for a fault of the client, a 503 for a parse error, and fails on a bad `expires_in` after the rotation.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote_plus

from oauthlib.oauth2 import WebApplicationClient
from oauthlib.oauth2.rfc6749.parameters import prepare_token_request

from server.accounts.errors import GrantDead, OurFault, OutcomeUnknown, PlatformError, PlatformRefused, TokenRejected
from server.accounts.grants import TokenSet
from server.accounts.model import Identity, Secret
from server.platforms import fields
from server.platforms.definition import ClientAuth, OAuth2Platform, Refusal, Rotation
from server.platforms.messages import HttpReply, HttpRequest
from server.platforms.registration import Registration

FORM = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
TRY_LATER = frozenset({408, 425})
"""Statuses that say no more than a 5xx."""


# --- requests


def basic_header(registration: Registration) -> str:
    """RFC 6749 section 2.3.1: id and secret are form-encoded before they are joined, which libraries leave out."""
    pair = f"{quote_plus(registration.client_id)}:{quote_plus(registration.client_secret.reveal())}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def form_headers(definition: OAuth2Platform, registration: Registration) -> dict[str, str]:
    """The headers of a form that we send as this client."""
    if definition.client_auth is ClientAuth.BASIC:
        return {**FORM, "authorization": basic_header(registration)}
    return dict(FORM)


def form_credentials(definition: OAuth2Platform, registration: Registration) -> dict[str, Any]:
    """The fields of the form that say who we are."""
    if definition.client_auth is ClientAuth.POST:
        return {"client_id": registration.client_id, "client_secret": registration.client_secret.reveal()}
    return {}


def refresh_request(
    definition: OAuth2Platform, registration: Registration, refresh_token: Secret, endpoint: str
) -> HttpRequest:
    """RFC 6749 section 6. Raises ValueError for an empty refresh token: oauthlib would send its own last one."""
    if not refresh_token:
        raise ValueError("there is no refresh token to send")
    # Not by a client of oauthlib: those are stateful, and a shared one has sent another account's token.
    body = prepare_token_request(
        "refresh_token", refresh_token=refresh_token.reveal(), **form_credentials(definition, registration)
    )
    return HttpRequest("POST", endpoint, form_headers(definition, registration), body.encode())


def revoke_request(definition: OAuth2Platform, registration: Registration, token: Secret, endpoint: str) -> HttpRequest:
    """RFC 7009 section 2.1, without a hint: X takes none."""
    _, _, body = WebApplicationClient(registration.client_id).prepare_token_revocation_request(
        endpoint, token=token.reveal(), token_type_hint=None, **form_credentials(definition, registration)
    )
    return HttpRequest("POST", endpoint, form_headers(definition, registration), body.encode())


def identity_request(definition: OAuth2Platform, access_token: Secret, endpoint: str) -> HttpRequest:
    """RFC 6750 section 2.1."""
    url = f"{endpoint}?{definition.identity_query}" if definition.identity_query else endpoint
    return HttpRequest("GET", url, {"authorization": f"Bearer {access_token.reveal()}", "accept": "application/json"})


def secrets_sent(registration: Registration, *sent: Secret | None) -> tuple[str, ...]:
    """The texts of a request that no error may repeat, also as they look in a form and in the Basic header."""
    plain = [secret.reveal() for secret in (registration.client_secret, *sent) if secret]
    return (*plain, *map(quote_plus, plain), basic_header(registration).removeprefix("Basic "))


# --- token replies


def read_refresh(
    definition: OAuth2Platform, registration: Registration, reply: HttpReply, spent: TokenSet, now: datetime
) -> TokenSet:
    """The new token set. Raises GrantDead, PlatformRefused, OurFault, OutcomeUnknown.

    `now` is when the request was made, so that no expiry is late. A missing or empty refresh token never replaces the
    one that is held.
    """
    body = granted(reply)
    if body is None:
        secrets = secrets_sent(registration, spent.refresh_token, spent.access_token)
        raise refusal(definition, reply, definition.dead_grant, now, secrets)
    return token_set(definition, body, reply, spent.scopes, spent.refresh_token, now)


def read_exchange(
    definition: OAuth2Platform, reply: HttpReply, asked: Sequence[str], now: datetime, secrets: Sequence[str]
) -> TokenSet:
    """The first token set. Raises GrantDead when the code is refused, else as `read_refresh`."""
    body = granted(reply)
    if body is None:
        raise refusal(definition, reply, definition.refused_code, now, secrets)
    return token_set(definition, body, reply, tuple(asked), None, now)


def granted(reply: HttpReply) -> dict[str, Any] | None:
    """The JSON object of a successful token reply; None for everything else."""
    body = fields.json_object(reply.body) if 200 <= reply.status < 300 else None
    if body is None or "error" in body or not fields.is_token(body.get("access_token")):
        return None
    return body


def refusal(
    definition: OAuth2Platform,
    reply: HttpReply,
    refusals: tuple[Refusal, ...],
    now: datetime,
    secrets: Sequence[str],
) -> PlatformError:
    """What a token reply that grants nothing means (design: 6.5)."""
    body = fields.json_object(reply.body)
    said, facts = what_it_said(reply, body, secrets)
    if any(dead.matches(reply.status, *error_of(body)) for dead in refusals):
        return GrantDead(said, **facts)
    if reply.status == 429:
        return PlatformRefused(said, retry_after=wait(reply, now), **facts)
    if reply.status >= 500 or reply.status in TRY_LATER:
        if definition.rotation is Rotation.NONE:
            return PlatformRefused(said, retry_after=wait(reply, now), **facts)
        return OutcomeUnknown(said, reply=reply.body, retry_after=wait(reply, now), **facts)
    if 300 <= reply.status < 500:
        # A redirect is never followed; like other refusals of the request as such it is no account's fault.
        return OurFault(said, **facts)
    return OutcomeUnknown(f"no readable token: {said}", reply=reply.body, **facts)


def token_set(
    definition: OAuth2Platform,
    body: dict[str, Any],
    reply: HttpReply,
    scopes: tuple[str, ...],
    held: Secret | None,
    now: datetime,
) -> TokenSet:
    """What `body` grants (RFC 6749 section 5.1). A token of another type than bearer leaves the outcome unknown."""
    token_type = body.get("token_type", "bearer")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise OutcomeUnknown("no bearer token in the token reply", status=reply.status, reply=reply.body)
    life = fields.lifetime(body.get("expires_in"), definition.default_access_token_lifetime)
    refresh_token = body.get("refresh_token")
    return TokenSet(
        access_token=Secret(body["access_token"]),
        refresh_token=Secret(refresh_token) if fields.is_token(refresh_token) else held,
        expire_time=None if life is None else now + life,
        scopes=fields.granted_scopes(body.get("scope"), scopes),
    )


# --- other replies


def read_revoke(
    definition: OAuth2Platform, registration: Registration, reply: HttpReply, token: Secret, now: datetime
) -> None:
    """RFC 7009 section 2.2: 2xx says that the token is not valid any more, also if it never was.

    So does an answer by which the platform calls a grant dead. Raises PlatformRefused, OurFault.
    """
    body = fields.json_object(reply.body)
    if 200 <= reply.status < 300 or any(dead.matches(reply.status, *error_of(body)) for dead in definition.dead_grant):
        return
    said, facts = what_it_said(reply, body, secrets_sent(registration, token))
    if reply.status == 429 or reply.status >= 500 or reply.status in TRY_LATER:
        raise PlatformRefused(said, retry_after=wait(reply, now), **facts)
    raise OurFault(said, **facts)


def read_identity(definition: OAuth2Platform, reply: HttpReply, now: datetime) -> tuple[Identity, ...]:
    """Raises TokenRejected on 401, PlatformRefused where it may do later, OutcomeUnknown for an unreadable answer."""
    said = f"{reply.status} at the identity endpoint"
    if reply.status == 401:
        raise TokenRejected(said, status=401)
    if reply.status != 200:
        raise PlatformRefused(said, status=reply.status, retry_after=wait(reply, now))
    try:
        found = definition.read_identity(fields.json_object(reply.body) or {})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise OutcomeUnknown("the identity reply is unreadable", status=200) from None
    if not fields.is_token(found.platform_user_id):
        raise OutcomeUnknown("the identity reply names nobody", status=200)
    return (
        replace(
            found,
            handle=fields.shown(found.handle),
            display_name=fields.shown(found.display_name),
            avatar_url=fields.shown(found.avatar_url),
        ),
    )


# --- what a reply says besides


def error_of(body: dict[str, Any] | None) -> tuple[str, str]:
    """`error` and `error_description` (RFC 6749 section 5.2), empty where there is no text."""
    found = [(body or {}).get(name) for name in ("error", "error_description")]
    error, description = (text if isinstance(text, str) else "" for text in found)
    return error, description


def what_it_said(reply: HttpReply, body: dict[str, Any] | None, secrets: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """An answer in words for operators, and its status and error code, without secrets."""
    error, description = (fields.redacted(text, secrets) for text in error_of(body))
    said = " ".join(filter(None, (str(reply.status), error, description)))
    return said, {"status": reply.status, "error": error}


def wait(reply: HttpReply, now: datetime) -> timedelta | None:
    return fields.retry_after(reply.headers.get("retry-after", ""), now)
