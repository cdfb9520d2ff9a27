"""OAuth without I/O: what to send, and what an answer means. Plain functions of bytes.

oauthlib builds the bodies and parses token sets; what kind of failure an answer is, we read ourselves: oauthlib takes
X's dead grant for a fault of the client, a 503 for a parse error, and fails on a bad `expires_in` after the rotation.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote_plus

from oauthlib.oauth2 import OAuth2Error, WebApplicationClient

from server.accounts.errors import (
    GrantDead,
    OurFault,
    OutcomeUnknown,
    PlatformRefused,
    TokenRejected,
)
from server.accounts.model import Identity, Secret, TokenSet
from server.platforms.definition import ClientAuth, OAuth2Platform, Refusal, Rotation
from server.platforms.messages import HttpReply, HttpRequest
from server.platforms.registration import Registration

LONGEST_LIFE = timedelta(days=3650)
RETRY_AFTER_RANGE = (timedelta(seconds=1), timedelta(hours=24))
FORM = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
LONGEST_TEXT = 200


# --- requests


def basic_header(registration: Registration) -> str:
    """RFC 6749 section 2.3.1: id and secret are form-encoded before they are joined, which libraries leave out."""
    pair = f"{quote_plus(registration.client_id)}:{quote_plus(registration.client_secret.reveal())}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def client_credentials(definition: OAuth2Platform, registration: Registration) -> tuple[dict[str, str], dict[str, str]]:
    """Headers and form fields that say who we are."""
    if definition.client_auth is ClientAuth.BASIC:
        return {"authorization": basic_header(registration)}, {}
    return {}, {"client_id": registration.client_id, "client_secret": registration.client_secret.reveal()}


def refresh_request(definition: OAuth2Platform, registration: Registration, refresh_token: Secret) -> HttpRequest:
    """RFC 6749 section 6. Raises ValueError for an empty refresh token: oauthlib would send its own last one."""
    if not refresh_token:
        raise ValueError("there is no refresh token to send")
    headers, fields = client_credentials(definition, registration)
    # A client of its own for each request: it is stateful, a shared one has sent another account's token.
    client = WebApplicationClient(registration.client_id)
    body = client.prepare_refresh_body(refresh_token=refresh_token.reveal(), **fields)
    return HttpRequest("POST", registration.endpoints(definition).token, {**FORM, **headers}, body.encode())


def revoke_request(definition: OAuth2Platform, registration: Registration, token: Secret, endpoint: str) -> HttpRequest:
    """RFC 7009 section 2.1, without a hint: X takes none."""
    headers, fields = client_credentials(definition, registration)
    client = WebApplicationClient(registration.client_id)
    _, _, body = client.prepare_token_revocation_request(endpoint, token=token.reveal(), token_type_hint=None, **fields)
    return HttpRequest("POST", endpoint, {**FORM, **headers}, body.encode())


def identity_request(definition: OAuth2Platform, access_token: Secret, endpoint: str) -> HttpRequest:
    url = f"{endpoint}?{definition.identity_query}" if definition.identity_query else endpoint
    return HttpRequest("GET", url, {"authorization": f"Bearer {access_token.reveal()}", "accept": "application/json"})


# --- replies


def read_refresh(definition: OAuth2Platform, reply: HttpReply, spent: TokenSet, now: datetime) -> TokenSet:
    """The new token set. Raises GrantDead, PlatformRefused, OurFault, OutcomeUnknown.

    A missing or empty refresh token never replaces the one that is held.
    """
    body = token_object(definition, reply, definition.dead_grant, now, secrets_of(spent))
    return token_set(definition, body, reply, spent.scopes, spent.refresh_token, now)


def read_exchange(definition: OAuth2Platform, reply: HttpReply, asked: Sequence[str], now: datetime) -> TokenSet:
    """The first token set. Raises GrantDead when the code is refused, else as `read_refresh`."""
    body = token_object(definition, reply, definition.refused_code, now, ())
    return token_set(definition, body, reply, tuple(asked), None, now)


def token_object(
    definition: OAuth2Platform,
    reply: HttpReply,
    refusals: tuple[Refusal, ...],
    now: datetime,
    secrets: Sequence[str],
) -> dict[str, Any]:
    """The JSON object of a successful token reply; everything else is raised as what it means."""
    body = json_object(reply.body)
    error, description = error_of(body, secrets)
    said = f"{reply.status} {error} {description}".strip()
    facts: dict[str, Any] = {"status": reply.status, "error": error}
    if body is not None and any(refusal.matches(reply.status, error, description) for refusal in refusals):
        raise GrantDead(said, **facts)
    if reply.status == 429:
        raise PlatformRefused(said, retry_after=retry_after(reply, now), **facts)
    if reply.status >= 500 or reply.status in (408, 425):
        if definition.rotation is Rotation.NONE:
            raise PlatformRefused(said, retry_after=retry_after(reply, now), **facts)
        raise OutcomeUnknown(said, reply=reply.body, **facts)
    if 300 <= reply.status < 500:
        # A redirect is never followed; like other refusals of the request as such it is no account's fault.
        raise OurFault(said, **facts)
    if body is None or error or not is_token(body.get("access_token")):
        raise OutcomeUnknown(f"{reply.status} without a readable token {error}".strip(), reply=reply.body, **facts)
    return body


def token_set(
    definition: OAuth2Platform,
    body: dict[str, Any],
    reply: HttpReply,
    scopes: tuple[str, ...],
    held: Secret | None,
    now: datetime,
) -> TokenSet:
    """Reads `expires_in` itself and lets oauthlib parse the rest; whatever that raises leaves the outcome unknown."""
    life = lifetime(body.pop("expires_in", None), definition.default_access_token_lifetime)
    refresh_token = body.pop("refresh_token", None)
    granted = body.pop("scope", None)
    try:
        parsed = WebApplicationClient("").parse_request_body_response(json.dumps(body))
        if str(parsed.get("token_type", "bearer")).lower() != "bearer":
            raise ValueError("token_type")
    except (OAuth2Error, Warning, ValueError, TypeError, KeyError, AttributeError) as error:
        unreadable = f"the token reply is unreadable: {type(error).__name__}"
        raise OutcomeUnknown(unreadable, status=reply.status, reply=reply.body) from None
    return TokenSet(
        access_token=Secret(body["access_token"]),
        refresh_token=Secret(refresh_token) if is_token(refresh_token) else held,
        expire_time=None if life is None else now + life,
        scopes=granted_scopes(granted, scopes),
    )


def read_revoke(reply: HttpReply, now: datetime, token: Secret) -> None:
    """RFC 7009 section 2.2: 200 says that the token is not valid any more, also if it never was."""
    if 200 <= reply.status < 300:
        return
    error, description = error_of(json_object(reply.body), (token.reveal(),))
    said = f"{reply.status} {error} {description}".strip()
    if reply.status == 429 or reply.status >= 500:
        raise PlatformRefused(said, status=reply.status, error=error, retry_after=retry_after(reply, now))
    raise OurFault(said, status=reply.status, error=error)


def read_identity(definition: OAuth2Platform, reply: HttpReply, now: datetime) -> tuple[Identity, ...]:
    """Raises TokenRejected on 401, PlatformRefused where it may do later, OutcomeUnknown for an unreadable answer."""
    if reply.status == 401:
        raise TokenRejected("401 at the identity endpoint", status=401)
    if reply.status != 200:
        raise PlatformRefused(
            f"{reply.status} at the identity endpoint", status=reply.status, retry_after=retry_after(reply, now)
        )
    body = json_object(reply.body)
    try:
        identity = definition.read_identity(body or {})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise OutcomeUnknown("the identity reply is unreadable", status=200) from None
    if not identity.platform_user_id or not identity.platform_user_id.isprintable():
        raise OutcomeUnknown("the identity reply names nobody", status=200)
    return (identity,)


# --- parts of replies


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that `body` is, or None."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def error_of(body: dict[str, Any] | None, secrets: Sequence[str]) -> tuple[str, str]:
    """`error` and `error_description`, short, printable, and without the secrets that were sent."""
    found = body or {}
    return plain(found.get("error"), secrets), plain(found.get("error_description"), secrets)


def is_token(value: Any) -> bool:
    """RFC 6749 appendix A.12: printable ASCII."""
    return isinstance(value, str) and value.isascii() and value.isprintable() and bool(value)


def plain(text: Any, secrets: Sequence[str]) -> str:
    if not isinstance(text, str):
        return ""
    for secret in secrets:
        text = text.replace(secret, "<redacted>")
    return "".join(character if character.isprintable() else " " for character in text)[:LONGEST_TEXT]


def secrets_of(spent: TokenSet) -> tuple[str, ...]:
    return tuple(token.reveal() for token in (spent.refresh_token, spent.access_token) if token)


def lifetime(value: Any, default: timedelta | None) -> timedelta | None:
    """`expires_in` as a span: numbers and their text; zero and less have ended; what is no number is as if missing."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return default
    try:
        seconds = float(value)
    except ValueError:
        return default
    if math.isnan(seconds):
        return default
    return timedelta(seconds=max(0.0, min(seconds, LONGEST_LIFE.total_seconds())))


def granted_scopes(value: Any, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Separated by spaces or commas, or a list; missing means as asked (RFC 6749 section 5.1)."""
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if not isinstance(value, list) or not all(isinstance(scope, str) for scope in value):
        return asked
    return tuple(dict.fromkeys(scope for text in value for scope in text.split()))


def retry_after(reply: HttpReply, now: datetime) -> timedelta | None:
    """RFC 9110 section 10.2.3, seconds or a date, between a second and a day; None for what is neither."""
    value = reply.headers.get("retry-after", "").strip()
    if not value:
        return None
    shortest, longest = RETRY_AFTER_RANGE
    if value.isascii() and value.isdigit():
        seconds = int(value[:12])
        return max(shortest, min(timedelta(seconds=min(seconds, 10**9)), longest))
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(shortest, min(date - now, longest))
