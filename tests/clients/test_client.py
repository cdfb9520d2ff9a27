"""The Python client, sync and asyncio, against a real gRPC server that answers as it is told."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
import synposter_accounts
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1 import account_service_pb2_grpc as pb_grpc
from synposter.accounts.v1.connected_account_pb2 import ConnectedAccount
from synposter.accounts.v1.error_reason_pb2 import ErrorReason
from synposter_accounts import (
    AccountNotFound,
    Accounts,
    AccountsError,
    AccountStatus,
    AsyncAccounts,
    AuthorizationResponse,
    DeadlineExceeded,
    PlatformRevocation,
    ServiceUnreachable,
)

ACCOUNT = ConnectedAccount(id="1", profile_id="p", platform="twitter", handle="ada", status=1, scopes=["b", "a"])
ACCOUNT.create_time.FromDatetime(datetime(2026, 11, 24, 12, 0, 0, 5, tzinfo=UTC))


class Told(pb_grpc.AccountServiceServicer):
    """Records requests; answers with what is in line, or with a default."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.line: list[Any] = []

    async def answer(self, request: Any, context: Any, default: Any) -> Any:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        answer = self.line.pop(0) if self.line else default
        if isinstance(answer, status_pb2.Status):
            status = rpc_status.to_status(answer)
            await context.abort(status.code, status.details, status.trailing_metadata)
        if answer == "hang":
            await asyncio.Event().wait()
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
        copy = pb.ListAccountsRequest()
        copy.CopyFrom(request)
        return await self.answer(copy, context, pb.ListAccountsResponse(accounts=[ACCOUNT]))

    async def Revoke(self, request: Any, context: Any) -> Any:
        return await self.answer(request, context, pb.RevokeResponse(account=ACCOUNT, platform_revocation=1))


class Either:
    """One of the two clients, called alike."""

    def __init__(self, kind: type, target: str, **options: Any) -> None:
        self.kind = kind
        self.client = kind(target, "key-canary", **options)

    async def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        method = getattr(self.client, name)
        if self.kind is Accounts:

            def run() -> Any:
                result = method(*arguments, **keywords)
                return list(result) if inspect.isgenerator(result) else result

            return await asyncio.to_thread(run)
        result = method(*arguments, **keywords)
        return [each async for each in result] if inspect.isasyncgen(result) else await result

    async def close(self) -> None:
        closing = self.client.close()
        if closing is not None:
            await closing


@pytest.fixture
async def served() -> AsyncIterator[tuple[Told, str]]:
    told = Told()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_AccountServiceServicer_to_server(told, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield told, f"127.0.0.1:{port}"
    await server.stop(0)


@pytest.fixture
def told(served: tuple[Told, str]) -> Told:
    return served[0]


@pytest.fixture(params=[Accounts, AsyncAccounts])
async def client(request: pytest.FixtureRequest, served: tuple[Told, str]) -> AsyncIterator[Either]:
    either = Either(request.param, served[1], timeout=5)
    yield either
    await either.close()


def failure(code: int, *details: Any) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message="no")
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def info(reason: str, **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain="accounts.synposter", metadata=metadata)


async def test_an_account_comes_with_enums_and_aware_times(client: Either, told: Told) -> None:
    account = await client.call("get", "1")
    assert account.status is AccountStatus.ACTIVE
    assert account.create_time == datetime(2026, 11, 24, 12, 0, 0, 5, tzinfo=UTC)
    assert account.last_refresh_time is None
    assert account.scopes == ("b", "a")
    assert told.metadata[0]["authorization"] == "Bearer key-canary"


async def test_a_connect_is_begun_and_completed(client: Either, told: Told) -> None:
    connect = await client.call("begin_connect", "p", "twitter", scopes=["a"], return_url="https://r", account_id="9")
    assert (connect.connect_id, connect.expire_time) == ("c", None)
    assert "https://x" not in repr(connect)
    assert told.requests[0] == pb.BeginConnectRequest(
        profile_id="p", platform="twitter", scopes=["a"], return_url="https://r", account_id="9"
    )
    [account] = await client.call("complete_connect", "p", completion_code="k")
    assert account.handle == "ada"
    response = AuthorizationResponse(state="s", code="c", iss="i")
    await client.call("complete_connect", "p", authorization_response=response)
    assert told.requests[2].authorization_response == pb.AuthorizationResponse(state="s", code="c", iss="i")
    for answers in ({}, {"completion_code": "k", "authorization_response": response}):
        with pytest.raises(ValueError, match="either"):
            await client.call("complete_connect", "p", **answers)


async def test_a_list_goes_through_all_pages(client: Either, told: Told) -> None:
    pages = [("t1", ["1", "2"]), ("t2", ["3"]), ("", ["4"])]
    told.line = [
        pb.ListAccountsResponse(accounts=[ConnectedAccount(id=each) for each in ids], next_page_token=token)
        for token, ids in pages
    ]
    found = await client.call("list", "p", statuses=[AccountStatus.EXPIRED], page_size=2)
    assert [account.id for account in found] == ["1", "2", "3", "4"]
    assert [request.page_token for request in told.requests] == ["", "t1", "t2"]
    assert list(told.requests[2].statuses) == [2]


async def test_a_revoke_says_what_the_platform_confirmed(client: Either) -> None:
    assert (await client.call("revoke", "1")).platform_revocation is PlatformRevocation.CONFIRMED


REASONS = [
    name.removeprefix("ERROR_REASON_")
    for name in ErrorReason.DESCRIPTOR.values_by_name
    if not name.endswith("UNSPECIFIED")
]


@pytest.mark.parametrize("reason", REASONS)
async def test_each_reason_has_an_error_of_its_own(client: Either, told: Told, reason: str) -> None:
    told.line = [failure(code_pb2.FAILED_PRECONDITION, info(reason, account_id="7"))]
    with pytest.raises(AccountsError) as caught:
        await client.call("revoke", "1")
    assert type(caught.value) is not AccountsError
    assert type(caught.value).reason == caught.value.reason == reason
    assert caught.value.metadata == {"account_id": "7"}
    assert type(caught.value).__name__ in synposter_accounts.__all__
    assert "canary" not in repr(caught.value) + str(caught.value.__dict__)


async def test_details_are_read(client: Either, told: Told) -> None:
    bad = error_details_pb2.BadRequest(
        field_violations=[error_details_pb2.BadRequest.FieldViolation(field="f", description="why")]
    )
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=7))
    told.line = [failure(code_pb2.INVALID_ARGUMENT, info("INVALID_FIELD"), bad, retry)]
    with pytest.raises(AccountsError) as caught:
        await client.call("begin_connect", "p", "twitter")
    assert caught.value.field_violations == {"f": "why"}
    assert caught.value.retry_after == timedelta(seconds=7)


async def test_a_reason_of_a_newer_service_is_the_base_class(client: Either, told: Told) -> None:
    told.line = [failure(code_pb2.ABORTED, info("FROM_THE_FUTURE"))]
    with pytest.raises(AccountsError) as caught:
        await client.call("revoke", "1")
    assert type(caught.value) is AccountsError and caught.value.reason == "FROM_THE_FUTURE"


async def test_reads_are_tried_again_when_the_service_is_unavailable_and_writes_are_not(
    client: Either, told: Told
) -> None:
    away = failure(code_pb2.UNAVAILABLE, info("STORE_UNAVAILABLE"))
    told.line = [away, away]
    assert (await client.call("get", "1")).handle == "ada"
    assert len(told.requests) == 3
    told.requests.clear()
    told.line = [away]
    with pytest.raises(synposter_accounts.StoreUnavailable):
        await client.call("revoke", "1")
    assert len(told.requests) == 1


@pytest.mark.parametrize("kind", [Accounts, AsyncAccounts])
async def test_a_service_that_is_not_there_or_does_not_answer_is_told_apart(
    kind: type, served: tuple[Told, str]
) -> None:
    nobody = Either(kind, "127.0.0.1:1", timeout=5)
    with pytest.raises(ServiceUnreachable):
        await nobody.call("revoke", "1")
    await nobody.close()
    slow = Either(kind, served[1], timeout=0.2)
    served[0].line = ["hang"]
    with pytest.raises(DeadlineExceeded):
        await slow.call("revoke", "1")
    await slow.close()


@pytest.mark.parametrize("kind", [Accounts, AsyncAccounts])
@pytest.mark.parametrize("target", ["accounts.example.com:443", "10.0.0.1:50051", "0.0.0.0:50051"])
async def test_a_key_is_never_sent_in_clear_beyond_this_machine(kind: type, target: str) -> None:
    with pytest.raises(ValueError, match="credentials"):
        kind(target, "key-canary")


def test_missing_and_not_found_are_caught_by_class() -> None:
    assert issubclass(AccountNotFound, AccountsError)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import subprocess
    import sys
    from pathlib import Path

    folder = tmp_path_factory.mktemp("wheel")
    source = Path(__file__).parents[2] / "clients/python"
    copy = folder / "source"
    subprocess.run(["cp", "-rL", str(source), str(copy)], check=True)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(folder),
            str(copy),
        ],
        check=True,
    )
    yield next(folder.glob("*.whl"))


def test_the_built_distribution_carries_the_generated_modules(wheel: Any) -> None:
    import zipfile

    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.startswith("synposter_accounts-")
    for name in ("synposter_accounts/py.typed", "synposter/accounts/v1/account_service_pb2.py"):
        assert name in names
