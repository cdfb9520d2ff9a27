"""The nouns of the connect flow: authorization requests and responses, and where a browser ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from server.accounts.model import Secret

OUTCOME_KEPT = timedelta(minutes=10)
"""How long the outcome of a connect is told to those who ask again."""
EXCHANGE_LIMIT = timedelta(seconds=60)
"""An exchange that has not ended by then has failed."""


class Phase(StrEnum):
    """How far an authorization request has come."""

    BEGUN = "begun"
    ANSWERED = "answered"
    """The browser has brought a code, which waits, sealed, for CompleteConnect."""
    EXCHANGING = "exchanging"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where one flow sends its requests: pinned when it begins, never read from a request or a reply afterwards."""

    authorization: str
    token: str
    revocation: str
    identity: str
    issuer: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connect failed, as it is told to everyone who asks afterwards."""

    reason: str
    """The name of a `Reason`."""
    text: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """One connect, from BeginConnect until its outcome is forgotten.

    `id` is the connect_id. `state_hash` is the SHA-256 of the state; the state itself is not kept.
    """

    id: str
    state_hash: bytes
    caller: str
    profile_id: str
    platform: str
    account_id: str | None
    scopes: tuple[str, ...]
    redirect_uri: str
    """Where the platform sends the browser: our callback, or the caller's own redirect URI."""
    return_url: str | None
    caller_redirects: bool
    """Whether redirect_uri is the caller's own."""
    endpoints: Endpoints
    code_verifier: Secret
    create_time: datetime
    expire_time: datetime
    phase_time: datetime
    """Since when it is in its phase."""
    phase: Phase = Phase.BEGUN
    code: Secret | None = None
    completion_expire_time: datetime | None = None
    failure: Failure | None = None
    account_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuthorizationResponse:
    """The parameters a platform sends to the redirect URI (RFC 6749 section 4.1.2, RFC 9207). Empty is absent."""

    state: Secret
    code: Secret | None = None
    iss: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """A connect that has begun. The authorization URL holds the state: it is for the user's browser alone."""

    connect_id: str
    authorization_url: str
    expire_time: datetime


class ResultPage(StrEnum):
    """The pages that a browser can end on at our callback. They are constant: nothing of the request is shown."""

    CONNECTED = "connected"
    DENIED = "denied"
    EXPIRED = "expired"
    """The link is unknown, too old, or was used before; which of these is not told."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ShowPage:
    """The callback's answer: a page of ours."""

    page: ResultPage


@dataclass(frozen=True, slots=True)
class SendBrowser:
    """The callback's answer: on to the return_url that was stored when the connect began."""

    url: str
