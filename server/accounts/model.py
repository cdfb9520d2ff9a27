"""The nouns of the domain: accounts, grants, token sets, authorization requests, callers, events.

Times are aware UTC datetimes and end in `_time`; spans are timedeltas. Ids are UUIDv7 text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Any, Final, NoReturn


class Secret:
    """Text that must not be seen: only `reveal()` gives it; every other way of showing or copying it is redacted."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "<redacted>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "<redacted>"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


class Status(Enum):
    """Whether an account can be used; the values are those of the proto enum AccountStatus."""

    ACTIVE = 1
    EXPIRED = 2
    REVOKED = 3


class StatusReason(Enum):
    """Why an account is EXPIRED or REVOKED; the values are those of the proto enum StatusReason."""

    NONE = 0
    REFRESH_REJECTED = 1
    REFRESH_OUTCOME_LOST = 2
    NOT_REFRESHABLE = 3
    REVOKED_BY_CALLER = 4


class PlatformRevocation(Enum):
    """What has become of a revoked account's tokens at the platform; the values are those of the proto enum."""

    NONE = 0
    CONFIRMED = 1
    PENDING = 2
    NOT_SUPPORTED = 3
    KEPT_FOR_SIBLING = 4
    NOTHING_TO_REVOKE = 5


class GrantState(StrEnum):
    """Where a grant stands between two refreshes."""

    READY = "ready"
    SENT = "sent"
    """A refresh was claimed and may have been sent; its answer is not stored yet."""
    UNKNOWN = "unknown"
    """A refresh was sent and no readable answer came: the refresh token may be spent."""
    SUSPECT = "suspect"
    """Restored from a backup: its refresh token may be spent."""
    DEAD = "dead"
    REVOKING = "revoking"


class Phase(StrEnum):
    """How far an authorization request has come."""

    BEGUN = "begun"
    ANSWERED = "answered"
    """The browser has brought a code, which waits, sealed, for CompleteConnect."""
    EXCHANGING = "exchanging"
    DONE = "done"
    FAILED = "failed"


class Permission(StrEnum):
    """What a caller may be allowed to do."""

    CONNECT = "connect"
    READ = "read"
    REFRESH = "refresh"
    REVOKE = "revoke"
    DELETE = "delete"
    ACT = "act"
    LIST_ALL = "list_all"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class Caller:
    """An internal service, by its credential, and what it may see and do."""

    name: str
    permissions: frozenset[Permission] = frozenset()
    profiles: tuple[str, ...] = ("",)
    """Prefixes of the profile ids it may see; the empty prefix is all of them."""
    platforms: frozenset[str] | None = None
    """The platforms it may see; None is all of them."""
    return_urls: frozenset[str] = frozenset()
    redirect_uris: frozenset[str] = frozenset()
    allow_shim_completion: bool = False

    def sees_profile(self, profile_id: str) -> bool:
        return profile_id.startswith(self.profiles)

    def sees_platform(self, platform: str) -> bool:
        return self.platforms is None or platform in self.platforms

    def sees(self, account: Account) -> bool:
        return self.sees_profile(account.profile_id) and self.sees_platform(account.platform)


@dataclass(frozen=True, slots=True)
class Account:
    """A handle on a platform attached to a profile, with the times of the grant behind it."""

    id: str
    profile_id: str
    platform: str
    platform_user_id: str
    grant_id: str
    handle: str
    display_name: str
    avatar_url: str
    scopes: tuple[str, ...]
    missing_scopes: tuple[str, ...]
    status: Status
    status_reason: StatusReason
    status_time: datetime
    platform_revocation: PlatformRevocation
    create_time: datetime
    update_time: datetime
    access_token_expire_time: datetime | None
    last_refresh_time: datetime | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some accounts in the order of their ids, and whether more follow."""

    accounts: tuple[Account, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class AccountFilter:
    """Which accounts a list shows. None and empty mean all."""

    profile_id: str | None = None
    profile_prefixes: tuple[str, ...] = ("",)
    platforms: frozenset[str] | None = None
    statuses: frozenset[Status] = frozenset()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the user is at the platform. Only `platform_user_id` identifies; the rest is for display."""

    platform_user_id: str
    handle: str
    display_name: str = ""
    avatar_url: str = ""


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a platform gave us for one consent, as last refreshed."""

    access_token: Secret
    refresh_token: Secret | None
    expire_time: datetime | None
    """When the access token ends; None if it does not."""
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where one flow sends its requests: pinned when it begins, never read from a request or a reply afterwards."""

    authorization: str
    token: str
    revocation: str
    identity: str
    issuer: str


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
    phase: Phase = Phase.BEGUN
    phase_time: datetime | None = None
    code: Secret | None = None
    completion_expire_time: datetime | None = None
    failure: Failure | None = None
    account_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connect failed, as it is told to everyone who asks afterwards."""

    reason: str
    """The name of a `Reason`."""
    text: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuthorizationResponse:
    """The parameters a platform sends to the redirect URI (RFC 6749 section 4.1.2, RFC 9207). Empty is absent."""

    state: Secret
    code: Secret | None = None
    iss: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class NewGrant:
    """A grant as it comes out of a code exchange, proved by reading whose it is."""

    id: str
    token_set: TokenSet
    identities: tuple[Identity, ...]
    missing_scopes: tuple[str, ...]
    due_time: datetime | None
    identity_due_time: datetime


@dataclass(frozen=True, slots=True)
class ClaimedGrant:
    """A grant that this process alone may refresh until `lease_expire_time`."""

    id: str
    platform: str
    generation: int
    token_set: TokenSet
    found: GrantState
    """The state it was found in: SENT means that the lease of an earlier claim ran out without an outcome."""
    sends: int
    """How often this refresh token may have reached the platform before."""
    attempts: int
    """How many refreshes of this token set have failed before, for the backoff."""
    due_time: datetime
    claim_time: datetime
    owner: str
    lease_expire_time: datetime


@dataclass(frozen=True, slots=True)
class IdentityRead:
    """A grant whose user's handle, name and avatar are to be read again."""

    grant_id: str
    generation: int
    token_set: TokenSet


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh brought, on its way to the disk: it may be the only live token set of its grant."""

    grant_id: str
    platform: str
    generation: int
    """The generation that was spent for it."""
    token_set: TokenSet
    due_time: datetime | None


class Commit(Enum):
    """What became of a refreshed token set that was offered to the store."""

    STORED = "stored"
    REVOKING = "revoking"
    """The grant was revoked meanwhile: the new pair went to the revocation outbox."""
    LOST = "lost"
    """Another process stored a token set first: this pair was parked as the grant's candidate."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What a grant is to wait for after a refresh that brought nothing."""

    state: GrantState
    due_time: datetime
    spent: bool
    """Whether the refresh token may have reached the platform. False: it provably was not used."""
    count: bool = True
    """Whether the failure counts towards the backoff."""


@dataclass(frozen=True, slots=True)
class ClaimedRevocation:
    """Tokens in the outbox that this process alone may revoke at the platform until its lease ends."""

    id: str
    platform: str
    tokens: tuple[Secret, ...]
    """The refresh token first, then the access token."""
    attempts: int


class EventKind(StrEnum):
    """The facts that are recorded about accounts."""

    CONNECT_BEGUN = "connect_begun"
    CONNECT_FAILED = "connect_failed"
    CONNECTED = "connected"
    RECONNECTED = "reconnected"
    IDENTITY_CHANGED = "identity_changed"
    SCOPES_CHANGED = "scopes_changed"
    REFRESH_FAILED = "refresh_failed"
    EXPIRED = "expired"
    REVOKED = "revoked"
    PLATFORM_REVOCATION_CONFIRMED = "platform_revocation_confirmed"

    @property
    def changes_account(self) -> bool:
        """Whether watchers are told: such events are numbered in commit order."""
        return self in ACCOUNT_CHANGES


ACCOUNT_CHANGES: Final = frozenset(
    {
        EventKind.CONNECTED,
        EventKind.RECONNECTED,
        EventKind.IDENTITY_CHANGED,
        EventKind.SCOPES_CHANGED,
        EventKind.EXPIRED,
        EventKind.REVOKED,
        EventKind.PLATFORM_REVOCATION_CONFIRMED,
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """One committed fact. `number` orders changes of accounts as they were committed; other facts have none."""

    id: str
    number: int | None
    time: datetime
    kind: EventKind
    account_id: str | None
    profile_id: str
    platform: str
    caller: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PlatformRules:
    """What the domain has to know of a platform to decide; how to speak to it is the platform's own business."""

    id: str
    display_name: str
    default_scopes: tuple[str, ...]
    required_scopes: tuple[str, ...]
    allowed_scopes: frozenset[str]
    code_lifetime: timedelta
    default_access_token_lifetime: timedelta | None
    """Taken where a reply names none; None: such a token does not end."""
    refresh_token_single_use: bool
    """Whether a refresh may replace the refresh token, so that a lost answer is a lost token."""
    revocation_supported: bool
    revocation_ends_user_grant: bool
    """Whether revoking one token ends every grant of that user for our app."""
    identity_interval: timedelta
    denied_errors: frozenset[str]
    """The authorization errors that mean: the user said no."""


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


@dataclass(frozen=True, slots=True)
class Begun:
    """A connect that has begun. The authorization URL holds the state: it is for the user's browser alone."""

    connect_id: str
    authorization_url: str
    expire_time: datetime
