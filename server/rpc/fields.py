"""Reads the fields of requests: the shape each must have, and InvalidField for what has another.

Whether a well-shaped value exists or is allowed is for the domain to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1.operations_service_pb2 import ListAuditEventsRequest
from synposter.accounts.v1.platform_service_pb2 import CallRequest

from server.accounts.errors import InvalidField
from server.accounts.events import EventFilter, EventKind
from server.accounts.flow import AuthorizationResponse
from server.accounts.model import Secret, Status

PROFILE_ID: Final = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")
SCOPE: Final = re.compile(r"[!-~]{1,128}")
# The text form of RFC 9562 section 4; upper case is to be accepted on input.
UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
MOST_SCOPES: Final = 50
PAGE_SIZE: Final = 50
MOST_PAGE_SIZE: Final = 500
MOST_REMAINING: Final = timedelta(days=365)
CALLER: Final = re.compile(r"[ -~]{1,128}")
KINDS: Final = frozenset(kind.value for kind in EventKind)
STATUSES: Final = {status.value: status for status in Status}


def required(text: str, field: str) -> str:
    if not text:
        raise InvalidField(field, "is required")
    return text


def profile_id(text: str) -> str:
    if not PROFILE_ID.fullmatch(text):
        raise InvalidField("profile_id", "must be 1 to 128 characters of [A-Za-z0-9._:@/-]")
    return text


def account_id(text: str, field: str) -> str:
    """A UUID in its lower-case text form."""
    if not UUID.fullmatch(text):
        raise InvalidField(field, "must be a UUID like 01890a5d-ac96-774b-bcce-b302099a8057")
    return text.lower()


def scopes(asked: Sequence[str]) -> tuple[str, ...]:
    """The scopes in the order they were asked for, each once."""
    if len(asked) > MOST_SCOPES:
        raise InvalidField("scopes", f"must be at most {MOST_SCOPES}")
    for scope in asked:
        if not SCOPE.fullmatch(scope):
            raise InvalidField("scopes", "each must be 1 to 128 printable ASCII characters without spaces")
    return tuple(dict.fromkeys(asked))


def min_remaining_lifetime(request: pb.RefreshAccountRequest | CallRequest) -> timedelta | None:
    """None where it is not set."""
    if not request.HasField("min_remaining_lifetime"):
        return None
    given = request.min_remaining_lifetime
    if given.seconds < 0 or given.nanos < 0 or given.seconds > MOST_REMAINING.total_seconds():
        raise InvalidField("min_remaining_lifetime", "must be from 0 to 365 days")
    return span(given)


def span(given: Duration) -> timedelta:
    return timedelta(seconds=given.seconds, microseconds=given.nanos // 1000)


def page_size(asked: int) -> int:
    if asked < 0:
        raise InvalidField("page_size", "must not be negative")
    return min(asked or PAGE_SIZE, MOST_PAGE_SIZE)


def statuses(asked: Sequence[int]) -> frozenset[Status]:
    """The statuses of a filter; empty is all of them."""
    if not STATUSES.keys() >= set(asked):
        raise InvalidField("statuses", "each must be ACTIVE, EXPIRED or REVOKED")
    return frozenset(STATUSES[value] for value in asked)


def event_filter(request: ListAuditEventsRequest) -> EventFilter:
    if request.caller and not CALLER.fullmatch(request.caller):
        raise InvalidField("caller", "must be at most 128 printable ASCII characters")
    if request.kind and request.kind not in KINDS:
        raise InvalidField("kind", f"must be one of {', '.join(sorted(KINDS))}")
    return EventFilter(
        account_id=account_id(request.account_id, "account_id") if request.account_id else None,
        profile_id=profile_id(request.profile_id) if request.profile_id else None,
        caller=request.caller or None,
        kind=request.kind or None,
        start_time=moment(request.start_time, "start_time") if request.HasField("start_time") else None,
        end_time=moment(request.end_time, "end_time") if request.HasField("end_time") else None,
    )


def moment(given: Timestamp, field: str) -> datetime:
    try:
        return given.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidField(field, "must be a time from the year 1 to 9999") from None


def endings(request: pb.BeginConnectRequest) -> tuple[str | None, str | None]:
    """The return_url and the redirect_uri, of which at most one is given."""
    if request.return_url and request.redirect_uri:
        raise InvalidField("return_url", "must not be given together with redirect_uri")
    return request.return_url or None, request.redirect_uri or None


def answer(request: pb.CompleteConnectRequest) -> tuple[Secret | None, AuthorizationResponse | None]:
    """The completion code or the authorization response, of which exactly one is given."""
    match request.WhichOneof("answer"):
        case "completion_code":
            return Secret(required(request.completion_code, "completion_code")), None
        case "authorization_response":
            return None, authorization_response(request.authorization_response)
        case _:
            raise InvalidField("answer", "completion_code or authorization_response is required")


def authorization_response(response: pb.AuthorizationResponse) -> AuthorizationResponse:
    """The platform's parameters, with the lengths of the proto; the error_description goes no further."""
    for name, most in (("code", 4096), ("state", 500), ("iss", 2048), ("error", 256), ("error_description", 4096)):
        if len(getattr(response, name)) > most:
            raise InvalidField(f"authorization_response.{name}", f"must be at most {most} characters")
    required(response.state, "authorization_response.state")
    if not response.code and not response.error:
        raise InvalidField("authorization_response.code", "is required unless error is set")
    return AuthorizationResponse(
        state=Secret(response.state),
        code=Secret(response.code) if response.code else None,
        iss=response.iss,
        error=response.error,
    )
