"""Building requests: pure functions that both clients share."""

from __future__ import annotations

import json as jsons
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1 import platform_service_pb2 as platform_pb

from synposter_accounts.model import AccountStatus, AuthorizationResponse


def begin(
    profile_id: str,
    platform: str,
    scopes: Iterable[str],
    return_url: str | None,
    redirect_uri: str | None,
    account_id: str | None,
) -> pb.BeginConnectRequest:
    return pb.BeginConnectRequest(
        profile_id=profile_id,
        platform=platform,
        scopes=tuple(scopes),
        return_url=return_url or "",
        redirect_uri=redirect_uri or "",
        account_id=account_id or "",
    )


def complete(
    profile_id: str, completion_code: str | None, response: AuthorizationResponse | None
) -> pb.CompleteConnectRequest:
    """Raises ValueError unless exactly one answer is given."""
    if (completion_code is None) == (response is None):
        raise ValueError("give either completion_code or authorization_response")
    if response is None:
        return pb.CompleteConnectRequest(profile_id=profile_id, completion_code=completion_code)
    answer = pb.AuthorizationResponse(
        code=response.code,
        state=response.state,
        iss=response.iss,
        error=response.error,
        error_description=response.error_description,
    )
    return pb.CompleteConnectRequest(profile_id=profile_id, authorization_response=answer)


def refresh(account_id: str, min_remaining_lifetime: timedelta | None) -> pb.RefreshAccountRequest:
    request = pb.RefreshAccountRequest(id=account_id)
    if min_remaining_lifetime is not None:
        request.min_remaining_lifetime.FromTimedelta(min_remaining_lifetime)
    return request


def listing(
    profile_id: str | None, platform: str | None, statuses: Iterable[AccountStatus], page_size: int | None
) -> pb.ListAccountsRequest:
    return pb.ListAccountsRequest(
        profile_id=profile_id or "",
        platform=platform or "",
        statuses=[int(status) for status in statuses],  # type: ignore[misc]
        page_size=page_size or 0,
    )


Query = Mapping[str, str] | Iterable[tuple[str, str]]


def call(
    account_id: str,
    method: str,
    path: str,
    query: Query,
    headers: Mapping[str, str] | None,
    json: Any,
    body: bytes,
    content_type: str | None,
    timeout: float,
    min_remaining_lifetime: timedelta | None,
    refuse_if_limited: bool,
) -> platform_pb.CallRequest:
    """Raises ValueError for a body beside `json`, TypeError for a parameter or header that is no text."""
    if json is not None:
        if body:
            raise ValueError("give either json or body")
        body, content_type = jsons.dumps(json).encode(), content_type or "application/json"
    request = platform_pb.CallRequest(
        account_id=account_id,
        method=method,
        path=path,
        content_type=content_type or "",
        body=body,
        refuse_if_limited=refuse_if_limited,
    )
    for name, value in texts("query", query.items() if isinstance(query, Mapping) else query):
        request.query.add(name=name, value=value)
    for name, value in texts("headers", (headers or {}).items()):
        request.headers.add(name=name, value=value)
    request.timeout.FromTimedelta(timedelta(seconds=timeout))
    if min_remaining_lifetime is not None:
        request.min_remaining_lifetime.FromTimedelta(min_remaining_lifetime)
    return request


def texts(what: str, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Says which is no text; how a number or a truth is to be written is for the platform to say."""
    for name, value in pairs:
        if not isinstance(value, str):
            raise TypeError(f"{what}: {name} must be a str, not {type(value).__name__}")
        yield name, value


def usage(
    account_id: str | None,
    profile_id: str | None,
    start_time: datetime | None,
    end_time: datetime | None,
    page_size: int | None,
) -> platform_pb.ListUsageRequest:
    """Raises ValueError unless exactly one of account and profile is given, and for a time without a zone."""
    if (account_id is None) == (profile_id is None):
        raise ValueError("give either account_id or profile_id")
    request = platform_pb.ListUsageRequest(page_size=page_size or 0)
    if account_id is not None:
        request.account_id = account_id
    if profile_id is not None:
        request.profile_id = profile_id
    for name, time in (("start_time", start_time), ("end_time", end_time)):
        if time is not None:
            if time.utcoffset() is None:
                raise ValueError(f"{name} needs a time zone, such as datetime.now(UTC) has")
            getattr(request, name).FromDatetime(time)
    return request
