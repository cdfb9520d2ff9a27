"""Reads the fields of Call: the shape that each must have at any platform, and InvalidField for what has another.

What a platform's own definition allows is for `platforms.api` to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from synposter.accounts.v1 import platform_service_pb2 as pb

from server.accounts.calls import LARGEST_BODY, USUAL_LIFETIME, USUAL_TIMEOUT, ApiCall
from server.accounts.errors import InvalidField
from server.accounts.routes import METHODS, SAFE, segments_of
from server.rpc import fields

HEADER_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,1022}[!-~])?")
# RFC 9110 section 8.3.1, with the parameters as they are used.
MEDIA_TYPE: Final = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}"
    r"(?:; ?[A-Za-z0-9_.+-]{1,64}=(?:[A-Za-z0-9'()+_./:=?-]{1,128}|\"[A-Za-z0-9'()+_,./:=? -]{1,128}\")){0,5}"
)
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
MOST_HEADERS: Final = 20
MOST_PARAMETERS: Final = 100
MOST_QUERY: Final = 16 * 1024
MOST_TIMEOUT: Final = timedelta(seconds=120)


def call(request: pb.CallRequest) -> ApiCall:
    """The call that is asked for. Raises InvalidField."""
    if request.method not in METHODS:
        raise InvalidField("method", f"must be one of {', '.join(METHODS)}")
    segments = segments_of(request.path)
    if segments is None:
        raise InvalidField("path", "must be like /2/users/12, with segments of [A-Za-z0-9._~-], and no OAuth endpoint")
    return ApiCall(
        account_id=fields.account_id(request.account_id, "account_id"),
        method=request.method,
        segments=segments,
        query=tuple(query(request)),
        headers=tuple(headers(request)),
        content_type=content_type(request),
        body=body(request),
        timeout=timeout(request),
        min_remaining_lifetime=min_remaining_lifetime(request),
        refuse_if_limited=request.refuse_if_limited,
    )


def query(request: pb.CallRequest) -> Iterator[tuple[str, str]]:
    if not request.query:
        return
    if len(request.query) > MOST_PARAMETERS:
        raise InvalidField("query", f"must be at most {MOST_PARAMETERS} parameters")
    if sum(len(each.name) + len(each.value) for each in request.query) > MOST_QUERY:
        raise InvalidField("query", f"must be at most {MOST_QUERY} characters together")
    for number, each in enumerate(request.query):
        if not 1 <= len(each.name) <= 128 or CONTROL.search(each.name):
            raise InvalidField(f"query[{number}].name", "must be 1 to 128 characters, none of them a control character")
        if CONTROL.search(each.value):
            raise InvalidField(f"query[{number}].value", "must not hold control characters")
        yield each.name, each.value


def headers(request: pb.CallRequest) -> Iterator[tuple[str, str]]:
    """Names in lower case, each once."""
    if len(request.headers) > MOST_HEADERS:
        raise InvalidField("headers", f"must be at most {MOST_HEADERS}")
    seen: set[str] = set()
    for number, each in enumerate(request.headers):
        name = each.name.lower()
        if not HEADER_NAME.fullmatch(each.name):
            raise InvalidField(f"headers[{number}].name", "must be 1 to 64 characters of [A-Za-z0-9-]")
        if name in seen:
            raise InvalidField(f"headers[{number}].name", "is there twice")
        if not HEADER_VALUE.fullmatch(each.value):
            raise InvalidField(f"headers[{number}].value", "must be 1 to 1024 printable ASCII characters")
        seen.add(name)
        yield name, each.value


def content_type(request: pb.CallRequest) -> str:
    given = request.content_type
    if given and not MEDIA_TYPE.fullmatch(given):
        raise InvalidField("content_type", "must be a media type such as application/json")
    if request.body and not given:
        raise InvalidField("content_type", "is required with a body")
    if given and not request.body:
        raise InvalidField("content_type", "is of no use without a body")
    return given


def body(request: pb.CallRequest) -> bytes:
    if request.body and request.method in SAFE:
        raise InvalidField("body", f"must be empty with {request.method}")
    if len(request.body) > LARGEST_BODY:
        raise InvalidField("body", f"must be at most {LARGEST_BODY} bytes")
    return request.body


def min_remaining_lifetime(request: pb.CallRequest) -> timedelta:
    given = fields.min_remaining_lifetime(request)
    return USUAL_LIFETIME if given is None else given


def timeout(request: pb.CallRequest) -> timedelta:
    if not request.HasField("timeout"):
        return USUAL_TIMEOUT
    given = request.timeout
    if given.seconds < 0 or given.nanos < 0 or given.seconds > MOST_TIMEOUT.total_seconds():
        raise InvalidField("timeout", "must be from 0.1 to 120 seconds")
    asked = fields.span(given)
    if not timedelta(seconds=0.1) <= asked <= MOST_TIMEOUT:
        raise InvalidField("timeout", "must be from 0.1 to 120 seconds")
    return asked
