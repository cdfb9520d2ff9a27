"""A service for the clients' tests: the generated servicer on a real port, which answers as it is told."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1 import account_service_pb2_grpc as pb_grpc
from synposter.accounts.v1 import platform_service_pb2 as platform_pb
from synposter.accounts.v1 import platform_service_pb2_grpc as platform_grpc
from synposter.accounts.v1.connected_account_pb2 import ConnectedAccount

ACCOUNT = ConnectedAccount(
    id="1", profile_id="p", platform="twitter", handle="ada", status="ACCOUNT_STATUS_ACTIVE", scopes=["b", "a"]
)
ACCOUNT.create_time.FromDatetime(datetime(2026, 11, 24, 12, 0, 0, 5, tzinfo=UTC))
HANG = "hang"
END = "end"
PATIENCE = 5.0  # seconds after which a call that should have been given up fails
MANY = 20  # no test makes as many calls


class Told(pb_grpc.AccountServiceServicer, platform_grpc.PlatformServiceServicer):
    """Records requests; answers with what is in line, or with a default.

    In line are responses, statuses, HANG, or bytes that stand where the details of a status should.
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.left: list[float] = []
        """What each call had left of its deadline, in seconds."""
        self.line: list[Any] = []
        self.watches = 0
        """How many are under way."""

    async def answer(self, request: Any, context: Any, default: Any) -> Any:
        assert len(self.requests) < MANY, "a client that does not stop"
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.left.append(context.time_remaining())
        answer = self.line.pop(0) if self.line else default
        if isinstance(answer, status_pb2.Status):
            status = rpc_status.to_status(answer)
            await context.abort(status.code, status.details, status.trailing_metadata)
        if answer == HANG:
            await asyncio.wait_for(asyncio.Event().wait(), PATIENCE)
        if isinstance(answer, bytes):
            await context.abort(grpc.StatusCode.ABORTED, "no", (("grpc-status-details-bin", answer),))
        return answer

    async def BeginConnect(self, request: Any, context: Any) -> Any:
        return await self.answer(
            request, context, pb.BeginConnectResponse(connect_id="c", authorization_url="https://x")
        )

    async def CompleteConnect(self, request: Any, context: Any) -> Any:
        return await self.answer(request, context, pb.CompleteConnectResponse(accounts=[ACCOUNT]))

    async def GetAccount(self, request: Any, context: Any) -> Any:
        return await self.answer(request, context, pb.GetAccountResponse(account=ACCOUNT))

    async def ListAccounts(self, request: Any, context: Any) -> Any:
        return await self.answer(request, context, pb.ListAccountsResponse(accounts=[ACCOUNT]))

    async def WatchAccounts(self, request: Any, context: Any) -> Any:
        """Streams what is in line, up to a status, END, or the end of the line; then it hangs."""
        assert len(self.requests) < MANY, "a client that does not stop"
        self.requests.append(pb.WatchAccountsRequest.FromString(request.SerializeToString()))
        self.watches += 1
        try:
            while self.line:
                news = self.line.pop(0)
                if news == END:
                    return
                if isinstance(news, status_pb2.Status):
                    status = rpc_status.to_status(news)
                    await context.abort(status.code, status.details, status.trailing_metadata)
                yield news
            await asyncio.wait_for(asyncio.Event().wait(), PATIENCE)
        finally:
            self.watches -= 1

    async def RefreshAccount(self, request: Any, context: Any) -> Any:
        return await self.answer(request, context, pb.RefreshAccountResponse(account=ACCOUNT))

    async def Revoke(self, request: Any, context: Any) -> Any:
        return await self.answer(request, context, pb.RevokeResponse(account=ACCOUNT))

    async def DeleteProfile(self, request: Any, context: Any) -> Any:
        return await self.answer(request, context, pb.DeleteProfileResponse(erasure_id="e"))

    async def Call(self, request: Any, context: Any) -> Any:
        return await self.answer(request, context, platform_pb.CallResponse(status_code=204))

    async def ListUsage(self, request: Any, context: Any) -> Any:
        return await self.answer(request, context, platform_pb.ListUsageResponse())


def failure(code: int, *details: Any) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message="no")
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def info(reason: str, **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain="accounts.synposter", metadata=metadata)


def account(account_id: str, handle: str = "ada") -> ConnectedAccount:
    return ConnectedAccount(id=account_id, profile_id="p", platform="twitter", handle=handle)


def listing(token: str, *ids: str, complete: bool = True) -> pb.WatchAccountsResponse:
    accounts = [account(each) for each in ids]
    return pb.WatchAccountsResponse(listing=pb.AccountListing(accounts=accounts, complete=complete), resume_token=token)


def change(token: str, account_id: str, handle: str | None = "ada", kind: int = 3) -> pb.WatchAccountsResponse:
    told = pb.AccountChange(kind=kind, account_id=account_id)  # type: ignore[arg-type]
    if handle is not None:
        told.account.CopyFrom(account(account_id, handle))
    return pb.WatchAccountsResponse(change=told, resume_token=token)


def beat(token: str) -> pb.WatchAccountsResponse:
    return pb.WatchAccountsResponse(heartbeat=pb.Heartbeat(), resume_token=token)


async def until(holds: Any) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
