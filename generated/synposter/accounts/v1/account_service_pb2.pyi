import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from synposter.accounts.v1 import connected_account_pb2 as _connected_account_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AccountChangeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCOUNT_CHANGE_KIND_UNSPECIFIED: _ClassVar[AccountChangeKind]
    ACCOUNT_CHANGE_KIND_CONNECTED: _ClassVar[AccountChangeKind]
    ACCOUNT_CHANGE_KIND_RECONNECTED: _ClassVar[AccountChangeKind]
    ACCOUNT_CHANGE_KIND_IDENTITY_CHANGED: _ClassVar[AccountChangeKind]
    ACCOUNT_CHANGE_KIND_SCOPES_CHANGED: _ClassVar[AccountChangeKind]
    ACCOUNT_CHANGE_KIND_EXPIRED: _ClassVar[AccountChangeKind]
    ACCOUNT_CHANGE_KIND_EXPIRING_SOON: _ClassVar[AccountChangeKind]
    ACCOUNT_CHANGE_KIND_REVOKED: _ClassVar[AccountChangeKind]
    ACCOUNT_CHANGE_KIND_DELETED: _ClassVar[AccountChangeKind]

class PlatformRevocation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLATFORM_REVOCATION_UNSPECIFIED: _ClassVar[PlatformRevocation]
    PLATFORM_REVOCATION_CONFIRMED: _ClassVar[PlatformRevocation]
    PLATFORM_REVOCATION_PENDING: _ClassVar[PlatformRevocation]
    PLATFORM_REVOCATION_NOT_SUPPORTED: _ClassVar[PlatformRevocation]
    PLATFORM_REVOCATION_KEPT_FOR_SIBLING: _ClassVar[PlatformRevocation]
    PLATFORM_REVOCATION_NOTHING_TO_REVOKE: _ClassVar[PlatformRevocation]
    PLATFORM_REVOCATION_GIVEN_UP: _ClassVar[PlatformRevocation]
ACCOUNT_CHANGE_KIND_UNSPECIFIED: AccountChangeKind
ACCOUNT_CHANGE_KIND_CONNECTED: AccountChangeKind
ACCOUNT_CHANGE_KIND_RECONNECTED: AccountChangeKind
ACCOUNT_CHANGE_KIND_IDENTITY_CHANGED: AccountChangeKind
ACCOUNT_CHANGE_KIND_SCOPES_CHANGED: AccountChangeKind
ACCOUNT_CHANGE_KIND_EXPIRED: AccountChangeKind
ACCOUNT_CHANGE_KIND_EXPIRING_SOON: AccountChangeKind
ACCOUNT_CHANGE_KIND_REVOKED: AccountChangeKind
ACCOUNT_CHANGE_KIND_DELETED: AccountChangeKind
PLATFORM_REVOCATION_UNSPECIFIED: PlatformRevocation
PLATFORM_REVOCATION_CONFIRMED: PlatformRevocation
PLATFORM_REVOCATION_PENDING: PlatformRevocation
PLATFORM_REVOCATION_NOT_SUPPORTED: PlatformRevocation
PLATFORM_REVOCATION_KEPT_FOR_SIBLING: PlatformRevocation
PLATFORM_REVOCATION_NOTHING_TO_REVOKE: PlatformRevocation
PLATFORM_REVOCATION_GIVEN_UP: PlatformRevocation

class BeginConnectRequest(_message.Message):
    __slots__ = ("profile_id", "platform", "scopes", "return_url", "redirect_uri", "account_id")
    PROFILE_ID_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    RETURN_URL_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_URI_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    profile_id: str
    platform: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    return_url: str
    redirect_uri: str
    account_id: str
    def __init__(self, profile_id: _Optional[str] = ..., platform: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., return_url: _Optional[str] = ..., redirect_uri: _Optional[str] = ..., account_id: _Optional[str] = ...) -> None: ...

class BeginConnectResponse(_message.Message):
    __slots__ = ("connect_id", "authorization_url", "expire_time")
    CONNECT_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZATION_URL_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    connect_id: str
    authorization_url: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, connect_id: _Optional[str] = ..., authorization_url: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CompleteConnectRequest(_message.Message):
    __slots__ = ("profile_id", "completion_code", "authorization_response")
    PROFILE_ID_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_CODE_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZATION_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    profile_id: str
    completion_code: str
    authorization_response: AuthorizationResponse
    def __init__(self, profile_id: _Optional[str] = ..., completion_code: _Optional[str] = ..., authorization_response: _Optional[_Union[AuthorizationResponse, _Mapping]] = ...) -> None: ...

class AuthorizationResponse(_message.Message):
    __slots__ = ("code", "state", "iss", "error", "error_description")
    CODE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ISS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ERROR_DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    code: str
    state: str
    iss: str
    error: str
    error_description: str
    def __init__(self, code: _Optional[str] = ..., state: _Optional[str] = ..., iss: _Optional[str] = ..., error: _Optional[str] = ..., error_description: _Optional[str] = ...) -> None: ...

class CompleteConnectResponse(_message.Message):
    __slots__ = ("accounts",)
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    accounts: _containers.RepeatedCompositeFieldContainer[_connected_account_pb2.ConnectedAccount]
    def __init__(self, accounts: _Optional[_Iterable[_Union[_connected_account_pb2.ConnectedAccount, _Mapping]]] = ...) -> None: ...

class GetAccountRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetAccountResponse(_message.Message):
    __slots__ = ("account",)
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    account: _connected_account_pb2.ConnectedAccount
    def __init__(self, account: _Optional[_Union[_connected_account_pb2.ConnectedAccount, _Mapping]] = ...) -> None: ...

class ListAccountsRequest(_message.Message):
    __slots__ = ("profile_id", "platform", "statuses", "page_size", "page_token")
    PROFILE_ID_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    profile_id: str
    platform: str
    statuses: _containers.RepeatedScalarFieldContainer[_connected_account_pb2.AccountStatus]
    page_size: int
    page_token: str
    def __init__(self, profile_id: _Optional[str] = ..., platform: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[_connected_account_pb2.AccountStatus, str]]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAccountsResponse(_message.Message):
    __slots__ = ("accounts", "next_page_token")
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    accounts: _containers.RepeatedCompositeFieldContainer[_connected_account_pb2.ConnectedAccount]
    next_page_token: str
    def __init__(self, accounts: _Optional[_Iterable[_Union[_connected_account_pb2.ConnectedAccount, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchAccountsRequest(_message.Message):
    __slots__ = ("profile_id", "platform", "resume_token")
    PROFILE_ID_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    profile_id: str
    platform: str
    resume_token: str
    def __init__(self, profile_id: _Optional[str] = ..., platform: _Optional[str] = ..., resume_token: _Optional[str] = ...) -> None: ...

class WatchAccountsResponse(_message.Message):
    __slots__ = ("listing", "change", "heartbeat", "resume_token")
    LISTING_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    listing: AccountListing
    change: AccountChange
    heartbeat: Heartbeat
    resume_token: str
    def __init__(self, listing: _Optional[_Union[AccountListing, _Mapping]] = ..., change: _Optional[_Union[AccountChange, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., resume_token: _Optional[str] = ...) -> None: ...

class AccountListing(_message.Message):
    __slots__ = ("accounts", "complete")
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    accounts: _containers.RepeatedCompositeFieldContainer[_connected_account_pb2.ConnectedAccount]
    complete: bool
    def __init__(self, accounts: _Optional[_Iterable[_Union[_connected_account_pb2.ConnectedAccount, _Mapping]]] = ..., complete: _Optional[bool] = ...) -> None: ...

class AccountChange(_message.Message):
    __slots__ = ("kind", "account_id", "account", "status_reason", "change_time")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    STATUS_REASON_FIELD_NUMBER: _ClassVar[int]
    CHANGE_TIME_FIELD_NUMBER: _ClassVar[int]
    kind: AccountChangeKind
    account_id: str
    account: _connected_account_pb2.ConnectedAccount
    status_reason: _connected_account_pb2.StatusReason
    change_time: _timestamp_pb2.Timestamp
    def __init__(self, kind: _Optional[_Union[AccountChangeKind, str]] = ..., account_id: _Optional[str] = ..., account: _Optional[_Union[_connected_account_pb2.ConnectedAccount, _Mapping]] = ..., status_reason: _Optional[_Union[_connected_account_pb2.StatusReason, str]] = ..., change_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RefreshAccountRequest(_message.Message):
    __slots__ = ("id", "min_remaining_lifetime")
    ID_FIELD_NUMBER: _ClassVar[int]
    MIN_REMAINING_LIFETIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    min_remaining_lifetime: _duration_pb2.Duration
    def __init__(self, id: _Optional[str] = ..., min_remaining_lifetime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RefreshAccountResponse(_message.Message):
    __slots__ = ("account", "refreshed")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    REFRESHED_FIELD_NUMBER: _ClassVar[int]
    account: _connected_account_pb2.ConnectedAccount
    refreshed: bool
    def __init__(self, account: _Optional[_Union[_connected_account_pb2.ConnectedAccount, _Mapping]] = ..., refreshed: _Optional[bool] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RevokeResponse(_message.Message):
    __slots__ = ("account", "platform_revocation")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_REVOCATION_FIELD_NUMBER: _ClassVar[int]
    account: _connected_account_pb2.ConnectedAccount
    platform_revocation: PlatformRevocation
    def __init__(self, account: _Optional[_Union[_connected_account_pb2.ConnectedAccount, _Mapping]] = ..., platform_revocation: _Optional[_Union[PlatformRevocation, str]] = ...) -> None: ...

class DeleteProfileRequest(_message.Message):
    __slots__ = ("profile_id",)
    PROFILE_ID_FIELD_NUMBER: _ClassVar[int]
    profile_id: str
    def __init__(self, profile_id: _Optional[str] = ...) -> None: ...

class DeleteProfileResponse(_message.Message):
    __slots__ = ("erasure_id", "erase_time", "accounts")
    ERASURE_ID_FIELD_NUMBER: _ClassVar[int]
    ERASE_TIME_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    erasure_id: str
    erase_time: _timestamp_pb2.Timestamp
    accounts: _containers.RepeatedCompositeFieldContainer[ErasedAccount]
    def __init__(self, erasure_id: _Optional[str] = ..., erase_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., accounts: _Optional[_Iterable[_Union[ErasedAccount, _Mapping]]] = ...) -> None: ...

class ErasedAccount(_message.Message):
    __slots__ = ("account_id", "platform", "platform_revocation", "erase_time", "update_time")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_REVOCATION_FIELD_NUMBER: _ClassVar[int]
    ERASE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    platform: str
    platform_revocation: PlatformRevocation
    erase_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, account_id: _Optional[str] = ..., platform: _Optional[str] = ..., platform_revocation: _Optional[_Union[PlatformRevocation, str]] = ..., erase_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
