"""`Accounts`: the client for threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import grpc
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1.account_service_pb2_grpc import AccountServiceStub
from synposter.accounts.v1.platform_service_pb2_grpc import PlatformServiceStub

from synposter_accounts import connection, requests
from synposter_accounts.acting import Answer, Usage, to_answer, to_usage
from synposter_accounts.correlation import with_request_id
from synposter_accounts.errors import from_rpc
from synposter_accounts.mirror import Mirror
from synposter_accounts.model import (
    Account,
    AccountStatus,
    AuthorizationResponse,
    Connect,
    Erasure,
    Refreshed,
    Revoked,
    to_account,
    to_connect,
    to_erasure,
    to_refreshed,
    to_revoked,
)
from synposter_accounts.watching import Course, Watch


class Accounts:
    """Connected Accounts at `target`, as the caller whose API key is given. Every call may take `timeout` seconds,
    its retries included; a list makes one call a page.

    All methods raise AccountsError, and ValueError once it is closed. Raises ValueError for a target beyond this
    machine without credentials, and for a key that is not visible ASCII.
    """

    def __init__(
        self, target: str, api_key: str, *, timeout: float = 10.0, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self._metadata = connection.bearer(api_key)
        if credentials is None:
            connection.check_in_clear(target)
            self._channel = grpc.insecure_channel(target, options=connection.OPTIONS_IN_CLEAR)
        else:
            self._channel = grpc.secure_channel(target, credentials, options=connection.OPTIONS)
        self._stub = AccountServiceStub(self._channel)
        self._platforms = PlatformServiceStub(self._channel)
        self._timeout = timeout

    def begin_connect(
        self,
        profile_id: str,
        platform: str,
        *,
        scopes: Iterable[str] = (),
        return_url: str | None = None,
        redirect_uri: str | None = None,
        account_id: str | None = None,
    ) -> Connect:
        """Send the user's browser to the URL it returns, within ten minutes. `account_id` reconnects that account.

        Raises InvalidField, UnknownPlatform, AccountNotFound among others.
        """
        request = requests.begin(profile_id, platform, scopes, return_url, redirect_uri, account_id)
        return to_connect(self._call(self._stub.BeginConnect, request))

    def complete_connect(
        self,
        profile_id: str,
        *,
        completion_code: str | None = None,
        authorization_response: AuthorizationResponse | None = None,
    ) -> list[Account]:
        """The accounts that the consent brought or renewed. Safe to repeat: the same answer comes for ten minutes.

        `profile_id` is that of the user who is logged in now. Raises ValueError unless exactly one answer is given;
        ConnectMismatch, UserDenied, ConnectExpired, CodeRefused among others.
        """
        request = requests.complete(profile_id, completion_code, authorization_response)
        return [to_account(each) for each in self._call(self._stub.CompleteConnect, request).accounts]

    def get(self, account_id: str) -> Account:
        """Raises AccountNotFound, also for an account that this caller may not see."""
        return to_account(self._call(self._stub.GetAccount, pb.GetAccountRequest(id=account_id)).account)

    def list(
        self,
        profile_id: str | None = None,
        *,
        platform: str | None = None,
        statuses: Iterable[AccountStatus] = (),
        page_size: int | None = None,
    ) -> Iterator[Account]:
        """All accounts, ordered by id, page by page as they are needed. `statuses` empty: all three.

        `profile_id` may be left out by callers with the permission `list_all` alone.
        """
        request = requests.listing(profile_id, platform, statuses, page_size)
        while True:
            page = self._call(self._stub.ListAccounts, request)
            yield from map(to_account, page.accounts)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def refresh(self, account_id: str, *, min_remaining_lifetime: timedelta | None = None) -> Refreshed:
        """Sees that the access token lives for at least this long; None asks for a refresh whatever is left of it.

        The service keeps accounts fresh by itself: this is for those who cannot wait. Within the service's
        `min_interval` (a minute) of a refresh or connect nothing is sent. A failed refresh raises only where the access
        token has ended: AccountExpired, AccountRevoked, PlatformPaused, PlatformUnavailable.
        """
        request = requests.refresh(account_id, min_remaining_lifetime)
        return to_refreshed(self._call(self._stub.RefreshAccount, request))

    def watch(self, profile_id: str | None = None, *, platform: str | None = None, resume_token: str = "") -> Watch:
        """What `profile_id`'s accounts are, and then every change of them, without an end: Listing, Change, Heartbeat.

        It reconnects and resumes by itself. To go on in another process, keep the `resume_token` of what was dealt with
        last. Where the service cannot tell any more what changed since, it lists the accounts again. `profile_id` may
        be left out by callers with the permission `list_all` alone. Raises AccountsError where it cannot go on.
        """
        return Watch(self._stub.WatchAccounts, self._metadata, Course(profile_id, platform, resume_token))

    def mirror(self, profile_id: str | None = None, *, platform: str | None = None) -> Mirror:
        """A dict of the accounts by id, kept true by a thread; entering it waits for all of them.

        As `with accounts.mirror("acme/7") as mirror`. The client's `timeout` is for the entry alone.
        The status says whether an account can be used: refreshes are not told, so the times of its token may be old.
        """
        return Mirror(self.watch(profile_id, platform=platform), self._timeout)

    def revoke(self, account_id: str) -> Revoked:
        """From its return on the account cannot be used. Safe to repeat: the present outcome comes again.

        Raises AccountNotFound.
        """
        return to_revoked(self._call(self._stub.Revoke, pb.RevokeRequest(id=account_id)))

    def delete_profile(self, profile_id: str) -> Erasure:
        """Revokes and erases all accounts of a profile for good. Safe to repeat: the present outcome comes again.

        Raises CallerNotPermitted.
        """
        request = pb.DeleteProfileRequest(profile_id=profile_id)
        return to_erasure(self._call(self._stub.DeleteProfile, request))

    def call(
        self,
        account_id: str,
        method: str,
        path: str,
        *,
        query: requests.Query = (),
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes = b"",
        content_type: str | None = None,
        timeout: float = 30.0,
        min_remaining_lifetime: timedelta | None = None,
        refuse_if_limited: bool = False,
    ) -> Answer:
        """Sends one HTTP request to the account's platform; its answer, whatever its status. `json` is a body too.

        `timeout` is in seconds and for this call, in place of the client's own. It is sent once: after a failure of a
        request that changes something, `may_have_been_done` of the error says whether to look before repeating it.

        Raises AccountExpired, MissingScope, RateLimited, OutcomeUnknown, PlatformUnavailable among others.
        """
        request = requests.call(
            account_id, method, path, query, headers, json, body, content_type, timeout, min_remaining_lifetime,
            refuse_if_limited,
        )  # fmt: skip
        # The service ends in time by itself and tells the outcome; who hangs up first does not hear it.
        return to_answer(self._call(self._platforms.Call, request, timeout + connection.PATIENCE))

    def list_usage(
        self,
        account_id: str | None = None,
        *,
        profile_id: str | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        page_size: int | None = None,
    ) -> Iterator[Usage]:
        """For what an account, or all of a profile, was used, by whom and when: the newest first, page by page.

        Times are aware. Raises ValueError unless one of the two is given; AccountNotFound.
        """
        request = requests.usage(account_id, profile_id, start_time, end_time, page_size)
        while True:
            page = self._call(self._platforms.ListUsage, request)
            for each in page.usages:
                yield to_usage(each)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _call(self, method: Any, request: Any, seconds: float | None = None) -> Any:
        try:
            return method(request, metadata=with_request_id(self._metadata), timeout=seconds or self._timeout)
        except grpc.RpcError as error:
            raise from_rpc(error) from None
