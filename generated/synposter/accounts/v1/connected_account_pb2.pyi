import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AccountStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCOUNT_STATUS_UNSPECIFIED: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_ACTIVE: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_EXPIRED: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_REVOKED: _ClassVar[AccountStatus]

class StatusReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_REASON_UNSPECIFIED: _ClassVar[StatusReason]
    STATUS_REASON_REFRESH_REJECTED: _ClassVar[StatusReason]
    STATUS_REASON_REFRESH_OUTCOME_LOST: _ClassVar[StatusReason]
    STATUS_REASON_NOT_REFRESHABLE: _ClassVar[StatusReason]
    STATUS_REASON_REVOKED_BY_CALLER: _ClassVar[StatusReason]
ACCOUNT_STATUS_UNSPECIFIED: AccountStatus
ACCOUNT_STATUS_ACTIVE: AccountStatus
ACCOUNT_STATUS_EXPIRED: AccountStatus
ACCOUNT_STATUS_REVOKED: AccountStatus
STATUS_REASON_UNSPECIFIED: StatusReason
STATUS_REASON_REFRESH_REJECTED: StatusReason
STATUS_REASON_REFRESH_OUTCOME_LOST: StatusReason
STATUS_REASON_NOT_REFRESHABLE: StatusReason
STATUS_REASON_REVOKED_BY_CALLER: StatusReason

class ConnectedAccount(_message.Message):
    __slots__ = ("id", "profile_id", "platform", "handle", "status", "scopes", "missing_scopes", "platform_user_id", "display_name", "avatar_url", "status_reason", "status_time", "access_token_expire_time", "last_refresh_time", "create_time", "update_time")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_ID_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    MISSING_SCOPES_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_USER_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    AVATAR_URL_FIELD_NUMBER: _ClassVar[int]
    STATUS_REASON_FIELD_NUMBER: _ClassVar[int]
    STATUS_TIME_FIELD_NUMBER: _ClassVar[int]
    ACCESS_TOKEN_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_REFRESH_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    profile_id: str
    platform: str
    handle: str
    status: AccountStatus
    scopes: _containers.RepeatedScalarFieldContainer[str]
    missing_scopes: _containers.RepeatedScalarFieldContainer[str]
    platform_user_id: str
    display_name: str
    avatar_url: str
    status_reason: StatusReason
    status_time: _timestamp_pb2.Timestamp
    access_token_expire_time: _timestamp_pb2.Timestamp
    last_refresh_time: _timestamp_pb2.Timestamp
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., profile_id: _Optional[str] = ..., platform: _Optional[str] = ..., handle: _Optional[str] = ..., status: _Optional[_Union[AccountStatus, str]] = ..., scopes: _Optional[_Iterable[str]] = ..., missing_scopes: _Optional[_Iterable[str]] = ..., platform_user_id: _Optional[str] = ..., display_name: _Optional[str] = ..., avatar_url: _Optional[str] = ..., status_reason: _Optional[_Union[StatusReason, str]] = ..., status_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., access_token_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_refresh_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
