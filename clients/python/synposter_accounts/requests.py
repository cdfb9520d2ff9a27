"""Building requests: pure functions that both clients share."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from synposter.accounts.v1 import account_service_pb2 as pb

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
