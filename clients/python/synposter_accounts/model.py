"""What the client returns: frozen dataclasses with enums and aware times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import TypeAlias, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1.connected_account_pb2 import ConnectedAccount


class AccountStatus(IntEnum):
    """Whether an account can be used. A number of a newer server is UNSPECIFIED."""

    UNSPECIFIED = 0
    ACTIVE = 1
    EXPIRED = 2
    REVOKED = 3


class StatusReason(IntEnum):
    """Why an account is EXPIRED or REVOKED; UNSPECIFIED while it is ACTIVE, and for a reason of a newer server."""

    UNSPECIFIED = 0
    REFRESH_REJECTED = 1
    REFRESH_OUTCOME_LOST = 2
    NOT_REFRESHABLE = 3
    REVOKED_BY_CALLER = 4


class PlatformRevocation(IntEnum):
    """What has become of a revoked account's tokens at the platform."""

    UNSPECIFIED = 0
    CONFIRMED = 1
    PENDING = 2
    NOT_SUPPORTED = 3
    KEPT_FOR_SIBLING = 4
    NOTHING_TO_REVOKE = 5
    GIVEN_UP = 6


@dataclass(frozen=True, slots=True)
class Account:
    """A connected account; see ConnectedAccount in the protos for each field. Times are None where unset."""

    id: str
    profile_id: str
    platform: str
    handle: str
    status: AccountStatus
    scopes: tuple[str, ...]
    missing_scopes: tuple[str, ...]
    platform_user_id: str
    display_name: str
    avatar_url: str
    status_reason: StatusReason
    status_time: datetime | None
    access_token_expire_time: datetime | None
    last_refresh_time: datetime | None
    create_time: datetime | None
    update_time: datetime | None


class AccountChangeKind(IntEnum):
    """What happened to an account."""

    UNSPECIFIED = 0
    CONNECTED = 1
    RECONNECTED = 2
    IDENTITY_CHANGED = 3
    SCOPES_CHANGED = 4
    EXPIRED = 5
    EXPIRING_SOON = 6
    REVOKED = 7
    DELETED = 8


@dataclass(frozen=True, slots=True)
class Listing:
    """Some of the accounts as they stand; whatever was not listed between `begins` and `complete` does not exist."""

    accounts: tuple[Account, ...]
    begins: bool
    complete: bool
    resume_token: str


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an account, with the account as it is by now: None once it is deleted."""

    kind: AccountChangeKind
    account_id: str
    account: Account | None
    status_reason: StatusReason
    """Why it is EXPIRED, where that is the change."""
    change_time: datetime | None
    resume_token: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing is missing up to now."""

    resume_token: str


News: TypeAlias = Listing | Change | Heartbeat


@dataclass(frozen=True, slots=True)
class Connect:
    """A connect that has begun. The URL is for this user's browser alone; do not log it."""

    connect_id: str
    authorization_url: str
    expire_time: datetime | None

    def __repr__(self) -> str:
        return f"Connect(connect_id={self.connect_id!r}, expire_time={self.expire_time!r})"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """An account as it is now, and whether the call brought a new access token."""

    account: Account
    refreshed: bool


@dataclass(frozen=True, slots=True)
class Revoked:
    """A revoked account, and what the platform has confirmed by now."""

    account: Account
    platform_revocation: PlatformRevocation


@dataclass(frozen=True, slots=True)
class ErasedAccount:
    """What is left of an erased account, and what the platform has confirmed by now."""

    account_id: str
    platform: str
    platform_revocation: PlatformRevocation
    erase_time: datetime | None
    update_time: datetime | None


@dataclass(frozen=True, slots=True)
class Erasure:
    """The receipt of a deleted profile: its accounts, also those of earlier deletions."""

    erasure_id: str
    erase_time: datetime | None
    accounts: tuple[ErasedAccount, ...]


@dataclass(frozen=True, slots=True, repr=False)
class AuthorizationResponse:
    """The query parameters that a platform sent to your own redirect URI."""

    state: str
    code: str = ""
    iss: str = ""
    error: str = ""
    error_description: str = ""


E = TypeVar("E", bound=IntEnum)


def known(kind: type[E], number: int) -> E:
    """The member of that number; UNSPECIFIED for one of a newer service."""
    try:
        return kind(number)
    except ValueError:
        return kind(0)


def time_of(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    return value.ToDatetime(tzinfo=UTC)


def to_account(message: ConnectedAccount) -> Account:
    return Account(
        id=message.id,
        profile_id=message.profile_id,
        platform=message.platform,
        handle=message.handle,
        status=known(AccountStatus, message.status),
        scopes=tuple(message.scopes),
        missing_scopes=tuple(message.missing_scopes),
        platform_user_id=message.platform_user_id,
        display_name=message.display_name,
        avatar_url=message.avatar_url,
        status_reason=known(StatusReason, message.status_reason),
        status_time=time_of(message, "status_time"),
        access_token_expire_time=time_of(message, "access_token_expire_time"),
        last_refresh_time=time_of(message, "last_refresh_time"),
        create_time=time_of(message, "create_time"),
        update_time=time_of(message, "update_time"),
    )


def to_connect(message: pb.BeginConnectResponse) -> Connect:
    return Connect(message.connect_id, message.authorization_url, time_of(message, "expire_time"))


def to_revoked(message: pb.RevokeResponse) -> Revoked:
    return Revoked(to_account(message.account), known(PlatformRevocation, message.platform_revocation))


def to_refreshed(message: pb.RefreshAccountResponse) -> Refreshed:
    return Refreshed(to_account(message.account), message.refreshed)


def to_erasure(message: pb.DeleteProfileResponse) -> Erasure:
    accounts = tuple(
        ErasedAccount(
            account_id=each.account_id,
            platform=each.platform,
            platform_revocation=known(PlatformRevocation, each.platform_revocation),
            erase_time=time_of(each, "erase_time"),
            update_time=time_of(each, "update_time"),
        )
        for each in message.accounts
    )
    return Erasure(message.erasure_id, time_of(message, "erase_time"), accounts)


def to_news(message: pb.WatchAccountsResponse, *, begins: bool) -> News:
    """News of a kind that this version does not know count as a heartbeat: they resume all the same."""
    match message.WhichOneof("news"):
        case "listing":
            accounts = tuple(map(to_account, message.listing.accounts))
            return Listing(accounts, begins, message.listing.complete, message.resume_token)
        case "change":
            change = message.change
            return Change(
                kind=known(AccountChangeKind, change.kind),
                account_id=change.account_id,
                account=to_account(change.account) if change.HasField("account") else None,
                status_reason=known(StatusReason, change.status_reason),
                change_time=time_of(change, "change_time"),
                resume_token=message.resume_token,
            )
        case _:
            return Heartbeat(message.resume_token)
