"""What a platform is: a declaration. Its quirks are fields here, whose comments say why, never an `if` elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import cached_property
from typing import Any, TypeAlias

from server.accounts.model import Identity
from server.accounts.routes import Route

Scopes: TypeAlias = tuple[tuple[Route, tuple[str, ...]], ...]
"""Routes, each with the scopes that requests of it need."""


class ClientAuth(Enum):
    """How the token endpoint wants our client id and secret (RFC 6749 section 2.3.1)."""

    BASIC = "basic"
    POST = "post"


class Pkce(Enum):
    """Whether a code is bound to the one who asked for it (RFC 7636)."""

    S256 = "S256"
    OFF = "off"


class Rotation(Enum):
    """Whether a refresh replaces the refresh token. A new one in a reply is taken whatever stands here."""

    SINGLE_USE = "single use"
    MAYBE = "maybe"
    """The platform does not say: a lost answer may be a lost token."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that refuses one token or code for good; an empty description matches any."""

    status: int
    error: str
    description: str = ""

    def matches(self, status: int, error: str, description: str) -> bool:
        return (self.status, self.error) == (status, error) and self.description in ("", description)


@dataclass(frozen=True, slots=True)
class RateLimitHeaders:
    """The headers by which answers tell of one limit. The reset is told in seconds since 1970."""

    limit: str
    remaining: str
    reset: str
    of_app: bool = False
    """Whether all accounts share the limit."""


@dataclass(frozen=True)
class ApiRules:
    """What callers may send to the API on accounts' behalf, and what of its answers they are told."""

    request_headers: frozenset[str] = frozenset()
    """Beside those that are harmless everywhere (`platforms.api`); in lower case, like all header names here."""
    response_headers: frozenset[str] = frozenset()
    rate_limits: tuple[RateLimitHeaders, ...] = ()
    scopes: Scopes = ()
    """The scopes that requests need; the first route that matches counts.

    What else only reads goes out as it is. What else changes something does not: nobody here knows what it needs.
    """
    path_characters: str = ""
    """The colon, where paths may have it: it is sent percent-encoded. Nothing else but the unreserved ones goes out."""

    @cached_property
    def told_headers(self) -> frozenset[str]:
        """Those of answers that callers are told, beside those that are harmless everywhere."""
        of_limits = ((each.limit, each.remaining, each.reset) for each in self.rate_limits)
        return self.response_headers.union(*of_limits)


def needs(*scopes: str, routes: Sequence[str]) -> Scopes:
    """The same scopes for several routes."""
    return tuple((Route.of(route), scopes) for route in routes)


INVALID_GRANT = Refusal(400, "invalid_grant")
"""RFC 6749 section 5.2."""


@dataclass(frozen=True, slots=True)
class OAuth2Platform:
    """How to speak OAuth 2.0 to one platform. Endpoints are absolute https URLs."""

    id: str
    display_name: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    identity_endpoint: str
    api_base: str
    default_scopes: tuple[str, ...]
    required_scopes: tuple[str, ...]
    allowed_scopes: frozenset[str]
    code_lifetime: timedelta
    client_auth: ClientAuth
    pkce: Pkce
    rotation: Rotation
    dead_grant: tuple[Refusal, ...]
    """Answers to a refresh that mean: this grant is dead."""
    refused_code: tuple[Refusal, ...]
    """Answers to an exchange that mean: this code is not good (any more)."""
    default_access_token_lifetime: timedelta | None
    """Taken where a reply names none; None: such tokens do not end."""
    identity_interval: timedelta
    """How often handle, name and avatar are read again."""
    read_identity: Callable[[Mapping[str, Any]], Identity]
    """Reads the identity endpoint's JSON object; raises KeyError, TypeError or ValueError for a wrong one."""
    replay_grace: timedelta = timedelta()
    """For how long a used refresh token works once more, where the platform's documentation says so."""
    refresh_rate: float = 200.0
    """Refreshes a second that it is asked at most; a million grants that are all overdue take 83 minutes at 200."""
    identity_query: str = ""
    issuer: str = ""
    """The `iss` that the platform promises to send (RFC 9207); empty: it promises none."""
    denied_errors: frozenset[str] = frozenset({"access_denied"})
    api: ApiRules = ApiRules()
    revocation_ends_user_grant: bool = False


def required_text(value: Any) -> str:
    """`value`, if it is text and not empty: `str` would make the user id "None" of a missing one. Raises ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError("not a text")
    return value
