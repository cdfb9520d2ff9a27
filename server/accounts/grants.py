"""The nouns of grants: token sets, claims on them, and what became of a refresh or a revocation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from typing import TypeAlias

from server.accounts.model import Identity, Secret


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


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a platform gave us for one consent, as last refreshed."""

    access_token: Secret
    refresh_token: Secret | None
    expire_time: datetime | None
    """When the access token ends; None if it does not."""
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewGrant:
    """A grant as it comes out of a code exchange, proved by reading whose it is."""

    id: str
    token_set: TokenSet
    identities: tuple[Identity, ...]
    missing_scopes: tuple[str, ...]
    due_time: datetime | None
    identity_due_time: datetime


AtHand: TypeAlias = Callable[[], TokenSet | None]
"""Opens a token set that was read sealed; None if there is none that may be used. What opens it is the store's."""


@dataclass(frozen=True, slots=True)
class ClaimedGrant:
    """A grant that this process alone may refresh until `lease_expire_time`."""

    id: str
    profile_id: str
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
    caller: str = ""
    """Who asked for it; empty where it was due."""


@dataclass(frozen=True, slots=True)
class GrantRecord:
    """Where a grant stands, without its tokens."""

    id: str
    platform: str
    state: GrantState
    generation: int
    refreshable: bool
    """Whether it has a refresh token."""
    access_token_expire_time: datetime | None
    due_time: datetime | None
    lease_owner: str
    lease_expire_time: datetime | None
    sends: int
    attempts: int
    last_error: str
    last_refresh_time: datetime | None
    create_time: datetime
    has_candidate: bool
    has_unread_reply: bool

    def lives_at(self, moment: datetime) -> bool:
        """Whether the access token is good then, as far as its expiry tells."""
        return self.access_token_expire_time is None or self.access_token_expire_time > moment


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
    profile_id: str
    platform: str
    generation: int
    """The generation that was spent for it."""
    scopes_before: tuple[str, ...]
    token_set: TokenSet
    due_time: datetime | None


def to_refreshed(spent: ClaimedGrant, token_set: TokenSet, due_time: datetime | None) -> Refreshed:
    """What a claimed grant was refreshed to."""
    return Refreshed(
        grant_id=spent.id,
        profile_id=spent.profile_id,
        platform=spent.platform,
        generation=spent.generation,
        scopes_before=spent.token_set.scopes,
        token_set=token_set,
        due_time=due_time,
    )


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


@dataclass(frozen=True, slots=True)
class UnreadReplies:
    """What a platform answered to refreshes of one grant and nobody could read: it may hold the only live token set."""

    grant_id: str
    profile_id: str
    platform: str
    state: GrantState
    generation: int
    """The generation that was spent for them."""
    token_set: TokenSet
    replies: tuple[Secret, ...]
    """The newest last."""


@dataclass(frozen=True, slots=True)
class UnreadReply:
    """One of them on its way to the disk."""

    grant_id: str
    generation: int
    """The generation that was spent for it."""
    reply: bytes = field(repr=False)
    """As it came: it may hold the only live token set."""


@dataclass(frozen=True, slots=True)
class ClaimedRevocation:
    """Tokens in the outbox that this process alone may revoke at the platform until its lease ends."""

    id: str
    platform: str
    tokens: tuple[Secret, ...]
    """The refresh token first, then the access token."""
    attempts: int
