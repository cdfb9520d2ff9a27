"""Turns errors into gRPC statuses: what callers are told, and what they are not."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from synposter.accounts.v1.account_service_pb2 import BeginConnectRequest

from server.accounts.errors import AccountError, InvalidField, Reason, Reconnect, TimeOver

log = logging.getLogger(__name__)

DOMAIN: Final = "accounts.synposter"
HIDDEN_TEXT: Final = "the service failed; its log has more under the incident in the error's metadata"

# A status travels in trailing metadata, of which clients accept 8 KiB by default; base64 and percent-encoding add to
# it, so each text in it is cut at this many bytes.
TEXT_BYTES: Final = 512

CODES: Final[Mapping[Reason, grpc.StatusCode]] = {
    Reason.INVALID_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNKNOWN_PLATFORM: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.ACCOUNT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.CONNECT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.CONNECT_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CONNECT_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.USER_DENIED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CODE_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.WRONG_PLATFORM_USER: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.ACCOUNT_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.ACCOUNT_REVOKED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.MISSING_SCOPE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.PLATFORM_PAUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CONNECT_MISMATCH: grpc.StatusCode.PERMISSION_DENIED,
    Reason.CALLER_NOT_PERMITTED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.CALLER_UNKNOWN: grpc.StatusCode.UNAUTHENTICATED,
    Reason.PLATFORM_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.IDENTITY_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.STORE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.OUTCOME_UNKNOWN: grpc.StatusCode.ABORTED,
    Reason.RESPONSE_WITHHELD: grpc.StatusCode.ABORTED,
    Reason.RESUME_TOKEN_TOO_OLD: grpc.StatusCode.OUT_OF_RANGE,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
}


class ServiceNotServed(Exception):
    """Health was asked about a service that is not here; its protocol wants NOT_FOUND, and none of our reasons."""


class DeadlineTooShort(Exception):
    """Too little time is left for a call to begin, or it took all that a call without a deadline gets.

    It has none of our reasons: callers meet this status without them whenever gRPC itself sees a deadline pass.
    """


class RequestTooLarge(InvalidField):
    """The request is larger than its method takes: audited as any malformed one.

    Its caller gets the status without our reason, since gRPC has none for what is larger still.
    """

    def __init__(self, largest: int) -> None:
        super().__init__("request", f"a request of this method has at most {largest} bytes")


class StreamCutOff(Exception):
    """The server had to end a stream, and its caller did not read. Callers meet this status whenever it leaves."""


def status_of(error: Exception) -> Status:
    """The status a caller gets for an error: the domain's are told, all others are hidden."""
    if isinstance(error, RequestTooLarge):
        return Status(code=number(grpc.StatusCode.RESOURCE_EXHAUSTED), message=legal(str(error)))
    if isinstance(error, AccountError) and getattr(error, "reason", None) in CODES:
        return told(error)
    if isinstance(error, ServiceNotServed):
        return Status(code=number(grpc.StatusCode.NOT_FOUND), message=legal(str(error)))
    if isinstance(error, DeadlineTooShort | TimeOver):
        return Status(code=number(grpc.StatusCode.DEADLINE_EXCEEDED), message=legal(str(error)))
    if isinstance(error, StreamCutOff):
        return Status(code=number(grpc.StatusCode.UNAVAILABLE), message=legal(str(error)))
    return hidden(error)


def told(error: AccountError) -> Status:
    """A domain error with its reason and facts, the field it names, and when to try again."""
    details: list[Message] = [error_info(error.reason, error.facts)]
    field, problem = getattr(error, "field", None), getattr(error, "problem", None)
    if field is not None and problem is not None:
        details.append(BadRequest(field_violations=[violation(field, problem)]))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(error.retry_after)
        details.append(RetryInfo(retry_delay=delay))
    reconnect = getattr(error, "reconnect", None)
    if reconnect is not None:
        details.append(hint(reconnect))
    return status(error.reason, error.text, details)


def hint(reconnect: Reconnect) -> BeginConnectRequest:
    """The request that begins to mend the account: the caller adds where the user's browser is to end, and sends it."""
    return BeginConnectRequest(
        profile_id=reconnect.profile_id,
        platform=reconnect.platform,
        account_id=reconnect.account_id,
        scopes=reconnect.scopes,
    )


def hidden(error: Exception) -> Status:
    """INTERNAL with an incident id, under which the error is logged: its text and type stay here."""
    incident = str(uuid.uuid4())
    log.error("a call failed", exc_info=error, extra={"incident": incident})
    return status(Reason.INTERNAL, HIDDEN_TEXT, [error_info(Reason.INTERNAL, {"incident": incident})])


def status(reason: Reason, text: str, details: list[Message]) -> Status:
    packed = []
    for detail in details:
        packed.append(Any())
        packed[-1].Pack(detail)
    return Status(code=number(CODES[reason]), message=legal(text), details=packed)


def error_info(reason: Reason, facts: Mapping[str, str]) -> ErrorInfo:
    metadata = {name: legal(str(fact)) for name, fact in facts.items()}
    return ErrorInfo(reason=reason.value, domain=DOMAIN, metadata=metadata)


def violation(field: str, problem: str) -> BadRequest.FieldViolation:
    return BadRequest.FieldViolation(field=legal(field), description=legal(problem))


def number(code: grpc.StatusCode) -> int:
    """The code as google.rpc.Status carries it."""
    value: int = code.value[0]
    return value


def legal(text: str) -> str:
    """The text as a protobuf string takes it (no lone surrogates), cut to TEXT_BYTES."""
    return text.encode("utf-8", "replace")[:TEXT_BYTES].decode("utf-8", "ignore")
