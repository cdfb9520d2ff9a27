"""The nouns everybody uses: secrets, accounts and their status, identities, the rules of a platform.

Times are aware UTC datetimes and end in `_time`; spans are timedeltas. Ids are UUIDv7 text.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import NamedTuple, NoReturn


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
    GIVEN_UP = 6


class Account(NamedTuple):
    """A handle on a platform attached to a profile, with the times of the grant behind it.

    A tuple, since a list makes hundreds of them: a frozen dataclass of so many fields takes five times as long.
    """

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
    replay_grace: timedelta
    """For how long the platform, by its own documentation, takes a used refresh token once more."""
    revocation_supported: bool
    revocation_ends_user_grant: bool
    """Whether revoking one token ends every grant of that user for our app."""
    identity_interval: timedelta
    denied_errors: frozenset[str]
    """The authorization errors that mean: the user said no."""


@dataclass(frozen=True, slots=True)
class Pause:
    """What an operator last said about a platform: paused for a reason, or to go on (an empty reason)."""

    platform: str
    reason: str
    operator: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Block:
    """What an operator last said about a caller: blocked for a reason, or not any more (an empty reason)."""

    caller: str
    reason: str
    operator: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Erasure:
    """A profile that is being erased: what was there at `create_time` goes."""

    id: str
    profile_id: str
    caller: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class ErasedAccount:
    """What is left of an erased account."""

    account_id: str
    platform: str
    platform_revocation: PlatformRevocation
    erase_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased of a profile, in this and in earlier erasures of it, and what was confirmed where."""

    erasure_id: str
    erase_time: datetime | None
    """When the last of it was erased here; None while that is under way."""
    accounts: tuple[ErasedAccount, ...]
