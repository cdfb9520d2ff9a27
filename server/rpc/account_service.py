"""AccountService: each method reads the request, calls one use case and writes the response."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from synposter.accounts.v1 import account_service_pb2 as pb

from server.accounts.callers import Caller
from server.accounts.connect import Connector
from server.accounts.erase import Eraser
from server.accounts.fresh import FreshTokens
from server.accounts.read import Reader
from server.accounts.revoke import Revoker
from server.accounts.watching import Watching
from server.rpc import fields
from server.rpc.messages import Encoded, write_account, write_time
from server.rpc.page_tokens import Listing, PageTokens
from server.rpc.resume_tokens import ResumeTokens, Watched
from server.rpc.watch import place_of, told


class AccountService:
    """The methods of synposter.accounts.v1.AccountService, by their names there; guard.py wraps them."""

    def __init__(
        self,
        connector: Connector,
        reader: Reader,
        fresh: FreshTokens,
        revoker: Revoker,
        eraser: Eraser,
        page_tokens: PageTokens,
        watching: Watching,
        resume_tokens: ResumeTokens,
    ) -> None:
        self._connector = connector
        self._reader = reader
        self._fresh = fresh
        self._revoker = revoker
        self._eraser = eraser
        self._page_tokens = page_tokens
        self._watching = watching
        self._resume_tokens = resume_tokens

    async def BeginConnect(self, request: pb.BeginConnectRequest, caller: Caller) -> pb.BeginConnectResponse:  # noqa: N802
        return_url, redirect_uri = fields.endings(request)
        begun = await self._connector.begin(
            caller,
            profile_id=fields.profile_id(request.profile_id),
            platform=fields.required(request.platform, "platform"),
            scopes=fields.scopes(request.scopes),
            return_url=return_url,
            redirect_uri=redirect_uri,
            account_id=fields.account_id(request.account_id, "account_id") if request.account_id else None,
        )
        response = pb.BeginConnectResponse(connect_id=begun.connect_id, authorization_url=begun.authorization_url)
        write_time(response.expire_time, begun.expire_time)
        return response

    async def CompleteConnect(self, request: pb.CompleteConnectRequest, caller: Caller) -> pb.CompleteConnectResponse:  # noqa: N802
        profile_id = fields.profile_id(request.profile_id)
        completion_code, answer = fields.answer(request)
        accounts = await self._connector.complete(
            caller, profile_id=profile_id, completion_code=completion_code, response=answer
        )
        response = pb.CompleteConnectResponse()
        for account in accounts:
            write_account(response.accounts.add(), account)
        return response

    async def GetAccount(self, request: pb.GetAccountRequest, caller: Caller) -> pb.GetAccountResponse:  # noqa: N802
        account = await self._reader.get(caller, fields.account_id(request.id, "id"))
        response = pb.GetAccountResponse()
        write_account(response.account, account)
        return response

    async def ListAccounts(self, request: pb.ListAccountsRequest, caller: Caller) -> pb.ListAccountsResponse:  # noqa: N802
        listing = Listing(
            profile_id=fields.profile_id(request.profile_id) if request.profile_id else None,
            platform=request.platform or None,
            statuses=fields.statuses(request.statuses),
        )
        page = await self._reader.list(
            caller,
            **listing._asdict(),
            size=fields.page_size(request.page_size),
            after=self._page_tokens.read(caller, listing, request.page_token),
        )
        response = pb.ListAccountsResponse()
        for account in page.accounts:
            write_account(response.accounts.add(), account)
        if page.more:
            response.next_page_token = self._page_tokens.write(caller, listing, page.accounts[-1].id)
        return response

    async def WatchAccounts(self, request: pb.WatchAccountsRequest, caller: Caller) -> AsyncGenerator[Encoded, None]:  # noqa: N802
        watched = Watched(
            profile_id=fields.profile_id(request.profile_id) if request.profile_id else None,
            platform=request.platform or None,
        )
        place = self._resume_tokens.read(caller, watched, request.resume_token)
        token_of = self._resume_tokens.writer(caller, watched)
        async with aclosing(self._watching.watch(caller, **watched._asdict(), place=place)) as all_news:
            async for news in all_news:
                yield told(news, token_of(place_of(news)))

    async def RefreshAccount(self, request: pb.RefreshAccountRequest, caller: Caller) -> pb.RefreshAccountResponse:  # noqa: N802
        account, refreshed = await self._fresh.refresh(
            caller, fields.account_id(request.id, "id"), fields.min_remaining_lifetime(request)
        )
        response = pb.RefreshAccountResponse(refreshed=refreshed)
        write_account(response.account, account)
        return response

    async def Revoke(self, request: pb.RevokeRequest, caller: Caller) -> pb.RevokeResponse:  # noqa: N802
        account = await self._revoker.revoke(caller, fields.account_id(request.id, "id"))
        response = pb.RevokeResponse()
        response.platform_revocation = account.platform_revocation.value  # type: ignore[assignment]
        write_account(response.account, account)
        return response

    async def DeleteProfile(self, request: pb.DeleteProfileRequest, caller: Caller) -> pb.DeleteProfileResponse:  # noqa: N802
        receipt = await self._eraser.delete_profile(caller, fields.profile_id(request.profile_id))
        response = pb.DeleteProfileResponse(erasure_id=receipt.erasure_id)
        if receipt.erase_time is not None:
            write_time(response.erase_time, receipt.erase_time)
        for account in receipt.accounts:
            into = response.accounts.add(account_id=account.account_id, platform=account.platform)
            into.platform_revocation = account.platform_revocation.value  # type: ignore[assignment]
            write_time(into.erase_time, account.erase_time)
            write_time(into.update_time, account.update_time)
        return response
