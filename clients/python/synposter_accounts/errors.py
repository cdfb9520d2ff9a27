"""Failures by reason: one class per ErrorReason of the protos, made from the details of a gRPC status."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, TypedDict

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from synposter.accounts.v1.account_service_pb2 import BeginConnectRequest

DOMAIN: Final = "accounts.synposter"


class Reconnect(TypedDict):
    """What `begin_connect` has to be asked so that the user can mend an account."""

    profile_id: str
    platform: str
    account_id: str
    scopes: tuple[str, ...]


class AccountsError(Exception):
    """A call failed: decide by class or `reason`, never by text.

    `reason` is a name of ErrorReason without its prefix, empty where the service gave none; `code` the gRPC status;
    `metadata` the facts that the proto names for the reason; `field_violations` problems by field; `retry_after` when
    to try again, where the service says so; `reconnect`, for AccountExpired and MissingScope, what to begin so that the
    user can mend it: `begin_connect(**error.reconnect, return_url=...)`.
    """

    reason = ""

    def __init__(
        self,
        text: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,  # pickle makes an exception from its text, then sets the rest
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        field_violations: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
        reconnect: Reconnect | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.reason = reason or type(self).reason
        self.metadata = dict(metadata or {})
        self.field_violations = dict(field_violations or {})
        self.retry_after = retry_after
        self.reconnect = reconnect

    @property
    def may_have_been_done(self) -> bool:
        """Whether what was asked for may have been carried out all the same: look before you repeat it.

        True where the service gave no reason, or one that is newer than this client.
        """
        return self.reason in MAYBE_DONE or self.reason not in BY_REASON


class ServiceUnreachable(AccountsError):
    """The service did not answer: it is not known whether the call reached it."""


class DeadlineExceeded(AccountsError):
    """The call took longer than its timeout; it may have been carried out all the same."""


class InvalidField(AccountsError):
    reason = "INVALID_FIELD"


class UnknownPlatform(AccountsError):
    reason = "UNKNOWN_PLATFORM"


class AccountNotFound(AccountsError):
    reason = "ACCOUNT_NOT_FOUND"


class ConnectNotFound(AccountsError):
    reason = "CONNECT_NOT_FOUND"


class ConnectExpired(AccountsError):
    reason = "CONNECT_EXPIRED"


class ConnectFailed(AccountsError):
    reason = "CONNECT_FAILED"


class UserDenied(AccountsError):
    reason = "USER_DENIED"


class CodeRefused(AccountsError):
    reason = "CODE_REFUSED"


class WrongPlatformUser(AccountsError):
    reason = "WRONG_PLATFORM_USER"


class AccountExpired(AccountsError):
    reason = "ACCOUNT_EXPIRED"
    reconnect: Reconnect


class AccountRevoked(AccountsError):
    reason = "ACCOUNT_REVOKED"


class MissingScope(AccountsError):
    reason = "MISSING_SCOPE"
    reconnect: Reconnect


class PlatformPaused(AccountsError):
    reason = "PLATFORM_PAUSED"


class ConnectMismatch(AccountsError):
    reason = "CONNECT_MISMATCH"


class CallerNotPermitted(AccountsError):
    reason = "CALLER_NOT_PERMITTED"


class CallerUnknown(AccountsError):
    reason = "CALLER_UNKNOWN"


class PlatformUnavailable(AccountsError):
    reason = "PLATFORM_UNAVAILABLE"


class IdentityUnavailable(AccountsError):
    reason = "IDENTITY_UNAVAILABLE"


class StoreUnavailable(AccountsError):
    reason = "STORE_UNAVAILABLE"


class RateLimited(AccountsError):
    reason = "RATE_LIMITED"
    retry_after: timedelta


class OutcomeUnknown(AccountsError):
    reason = "OUTCOME_UNKNOWN"


class ResponseWithheld(AccountsError):
    """The platform answered a call, and the answer is not passed on; what was asked for may have been done."""

    reason = "RESPONSE_WITHHELD"


class ResumeTokenTooOld(AccountsError):
    """What changed since cannot be told any more: watch without a token, which lists the accounts anew."""

    reason = "RESUME_TOKEN_TOO_OLD"


class InternalFault(AccountsError):
    """A fault of the service; `metadata["incident"]` is what its operators look for."""

    reason = "INTERNAL"


BY_REASON: Final[dict[str, type[AccountsError]]] = {
    kind.reason: kind for kind in AccountsError.__subclasses__() if kind.reason
}
MAYBE_DONE: Final = frozenset({"OUTCOME_UNKNOWN", "RESPONSE_WITHHELD", "INTERNAL"})
WITHOUT_REASON: Final[dict[grpc.StatusCode, type[AccountsError]]] = {
    grpc.StatusCode.UNAVAILABLE: ServiceUnreachable,
    grpc.StatusCode.CANCELLED: ServiceUnreachable,  # by the service, which stops or has too many calls waiting
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def from_rpc(error: Any) -> AccountsError:
    """The typed error of a failed call; a reason of a newer service gives the base class."""
    code = error.code()
    info, violations, retry_after, reconnect = error_details_pb2.ErrorInfo(), {}, None, None
    for detail in details_of(error):
        bad, retry, begin = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo(), BeginConnectRequest()
        with contextlib.suppress(DecodeError):
            if detail.Unpack(bad):
                violations = {each.field: each.description for each in bad.field_violations}
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.ToTimedelta()
            elif detail.Unpack(begin):
                reconnect = to_reconnect(begin)
            else:
                detail.Unpack(info)
    reason = info.reason if info.domain == DOMAIN else ""
    return kind_of(reason, code)(
        error.details() or code.name,
        code=code,
        reason=reason,
        metadata=info.metadata if reason else None,
        field_violations=violations,
        retry_after=retry_after,
        reconnect=reconnect,
    )


def to_reconnect(begin: BeginConnectRequest) -> Reconnect:
    return Reconnect(
        profile_id=begin.profile_id, platform=begin.platform, account_id=begin.account_id, scopes=tuple(begin.scopes)
    )


def kind_of(reason: str, code: grpc.StatusCode) -> type[AccountsError]:
    return BY_REASON.get(reason, AccountsError) if reason else WITHOUT_REASON.get(code, AccountsError)


def details_of(error: Any) -> Iterable[Any]:
    """The details of a status; none where something on the way has garbled them or put in a status of its own."""
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        return ()
    return status.details if status is not None else ()


@contextlib.contextmanager
def told() -> Iterator[None]:
    """The failures of grpc.aio as the client tells them: AccountsError, and ValueError once it is closed.

    gRPC cancels whoever waits for a client that is being closed; a task that nobody cancelled must not end so.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc(error) from None
    except grpc.aio.UsageError:
        raise ValueError("this client was closed") from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ServiceUnreachable("this client was closed", code=grpc.StatusCode.CANCELLED) from None
