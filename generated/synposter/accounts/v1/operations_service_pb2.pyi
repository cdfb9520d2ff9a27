import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from synposter.accounts.v1 import connected_account_pb2 as _connected_account_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExplainAccountRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ExplainAccountResponse(_message.Message):
    __slots__ = ("account", "grant", "events", "next_step", "next_time", "platform_hold")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    NEXT_TIME_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_HOLD_FIELD_NUMBER: _ClassVar[int]
    account: _connected_account_pb2.ConnectedAccount
    grant: GrantReport
    events: _containers.RepeatedCompositeFieldContainer[AccountEvent]
    next_step: str
    next_time: _timestamp_pb2.Timestamp
    platform_hold: str
    def __init__(self, account: _Optional[_Union[_connected_account_pb2.ConnectedAccount, _Mapping]] = ..., grant: _Optional[_Union[GrantReport, _Mapping]] = ..., events: _Optional[_Iterable[_Union[AccountEvent, _Mapping]]] = ..., next_step: _Optional[str] = ..., next_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., platform_hold: _Optional[str] = ...) -> None: ...

class GrantReport(_message.Message):
    __slots__ = ("id", "state", "generation", "refreshable", "access_token_expire_time", "due_time", "sends", "failed_attempts", "last_error", "last_refresh_time", "create_time", "lease_owner", "lease_expire_time", "has_candidate", "has_unread_reply")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REFRESHABLE_FIELD_NUMBER: _ClassVar[int]
    ACCESS_TOKEN_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    DUE_TIME_FIELD_NUMBER: _ClassVar[int]
    SENDS_FIELD_NUMBER: _ClassVar[int]
    FAILED_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    LAST_REFRESH_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    LEASE_OWNER_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    HAS_CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    HAS_UNREAD_REPLY_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: str
    generation: int
    refreshable: bool
    access_token_expire_time: _timestamp_pb2.Timestamp
    due_time: _timestamp_pb2.Timestamp
    sends: int
    failed_attempts: int
    last_error: str
    last_refresh_time: _timestamp_pb2.Timestamp
    create_time: _timestamp_pb2.Timestamp
    lease_owner: str
    lease_expire_time: _timestamp_pb2.Timestamp
    has_candidate: bool
    has_unread_reply: bool
    def __init__(self, id: _Optional[str] = ..., state: _Optional[str] = ..., generation: _Optional[int] = ..., refreshable: _Optional[bool] = ..., access_token_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., due_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sends: _Optional[int] = ..., failed_attempts: _Optional[int] = ..., last_error: _Optional[str] = ..., last_refresh_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., lease_owner: _Optional[str] = ..., lease_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., has_candidate: _Optional[bool] = ..., has_unread_reply: _Optional[bool] = ...) -> None: ...

class AccountEvent(_message.Message):
    __slots__ = ("time", "kind", "caller", "facts", "number")
    class FactsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    kind: str
    caller: str
    facts: _containers.ScalarMap[str, str]
    number: int
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[str] = ..., caller: _Optional[str] = ..., facts: _Optional[_Mapping[str, str]] = ..., number: _Optional[int] = ...) -> None: ...

class ListAuditEventsRequest(_message.Message):
    __slots__ = ("account_id", "profile_id", "caller", "kind", "start_time", "end_time", "page_size", "page_token")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    profile_id: str
    caller: str
    kind: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    def __init__(self, account_id: _Optional[str] = ..., profile_id: _Optional[str] = ..., caller: _Optional[str] = ..., kind: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAuditEventsResponse(_message.Message):
    __slots__ = ("events", "next_page_token")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[AuditEvent]
    next_page_token: str
    def __init__(self, events: _Optional[_Iterable[_Union[AuditEvent, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class AuditEvent(_message.Message):
    __slots__ = ("id", "time", "kind", "caller", "peer", "request_id", "result", "account_id", "profile_id", "platform", "facts", "chain_position")
    class FactsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_ID_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    CHAIN_POSITION_FIELD_NUMBER: _ClassVar[int]
    id: str
    time: _timestamp_pb2.Timestamp
    kind: str
    caller: str
    peer: str
    request_id: str
    result: str
    account_id: str
    profile_id: str
    platform: str
    facts: _containers.ScalarMap[str, str]
    chain_position: int
    def __init__(self, id: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[str] = ..., caller: _Optional[str] = ..., peer: _Optional[str] = ..., request_id: _Optional[str] = ..., result: _Optional[str] = ..., account_id: _Optional[str] = ..., profile_id: _Optional[str] = ..., platform: _Optional[str] = ..., facts: _Optional[_Mapping[str, str]] = ..., chain_position: _Optional[int] = ...) -> None: ...
