"""What the clients send and return, sync and asyncio."""

import asyncio
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

import pytest
from google.protobuf.descriptor import EnumDescriptor
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1 import connected_account_pb2
from synposter.accounts.v1.connected_account_pb2 import ConnectedAccount
from synposter_accounts import (
    Account,
    Accounts,
    AccountStatus,
    AsyncAccounts,
    AuthorizationResponse,
    ErasedAccount,
    PlatformRevocation,
    StatusReason,
    correlation,
    request_id,
)

from server.rpc import origin
from tests.clients.either import Either
from tests.clients.told import ACCOUNT, Told

TIME = datetime(2026, 11, 24, 12, 0, 0, 5, tzinfo=UTC)


async def test_an_account_comes_with_enums_and_aware_times(client: Either, told: Told) -> None:
    account = await client.call("get", "1")
    assert told.requests == [pb.GetAccountRequest(id="1")]
    assert account.status is AccountStatus.ACTIVE
    assert account.create_time == TIME
    assert account.create_time.tzinfo is UTC
    assert account.last_refresh_time is None
    assert account.scopes == ("b", "a")


async def test_every_field_of_an_account_arrives(client: Either, told: Told) -> None:
    sent = ConnectedAccount()
    for field in ConnectedAccount.DESCRIPTOR.fields:
        if field.message_type:
            getattr(sent, field.name).FromDatetime(TIME)
        elif field.enum_type:
            setattr(sent, field.name, 2)
        elif field.is_repeated:
            getattr(sent, field.name).append(field.name)
        else:
            setattr(sent, field.name, field.name)
    told.line = [pb.GetAccountResponse(account=sent)]
    account = await client.call("get", "1")
    assert Account.__slots__ == tuple(field.name for field in ConnectedAccount.DESCRIPTOR.fields)
    for field in ConnectedAccount.DESCRIPTOR.fields:
        one = TIME if field.message_type else 2 if field.enum_type else field.name
        assert getattr(account, field.name) == ((field.name,) if field.is_repeated else one)


async def test_an_account_cannot_be_changed(client: Either) -> None:
    account = await client.call("get", "1")
    with pytest.raises(AttributeError):
        account.handle = "eve"


async def test_a_connect_is_begun_with_what_was_asked(client: Either, told: Told) -> None:
    answer = pb.BeginConnectResponse(connect_id="c", authorization_url="https://x?state=secret")
    answer.expire_time.FromDatetime(TIME)
    told.line = [answer]
    connect = await client.call("begin_connect", "p", "twitter", scopes=["a"], return_url="https://r", account_id="9")
    assert (connect.connect_id, connect.expire_time) == ("c", TIME)
    assert connect.authorization_url == "https://x?state=secret"
    await client.call("begin_connect", "p", "twitter", redirect_uri="https://d")
    assert told.requests == [
        pb.BeginConnectRequest(
            profile_id="p", platform="twitter", scopes=["a"], return_url="https://r", account_id="9"
        ),
        pb.BeginConnectRequest(profile_id="p", platform="twitter", redirect_uri="https://d"),
    ]


async def test_the_secret_state_and_code_are_in_no_repr(client: Either, told: Told) -> None:
    told.line = [pb.BeginConnectResponse(connect_id="c", authorization_url="https://x?state=canary")]
    assert "canary" not in repr(await client.call("begin_connect", "p", "twitter"))
    assert "canary" not in repr(AuthorizationResponse(state="canary", code="canary"))


async def test_a_connect_is_completed_with_either_answer(client: Either, told: Told) -> None:
    [account] = await client.call("complete_connect", "p", completion_code="k")
    assert account.handle == ACCOUNT.handle
    response = AuthorizationResponse(state="s", code="c", iss="i", error="e", error_description="d")
    await client.call("complete_connect", "p", authorization_response=response)
    sent = pb.AuthorizationResponse(state="s", code="c", iss="i", error="e", error_description="d")
    assert told.requests == [
        pb.CompleteConnectRequest(profile_id="p", completion_code="k"),
        pb.CompleteConnectRequest(profile_id="p", authorization_response=sent),
    ]


@pytest.mark.parametrize(
    "answers", [{}, {"completion_code": "k", "authorization_response": AuthorizationResponse("s")}]
)
async def test_a_connect_is_completed_with_one_answer_only(client: Either, told: Told, answers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either"):
        await client.call("complete_connect", "p", **answers)
    assert told.requests == []


async def test_a_list_goes_through_all_pages(client: Either, told: Told) -> None:
    pages = [("t1", ["1", "2"]), ("t2", []), ("", ["3"])]
    told.line = [
        pb.ListAccountsResponse(accounts=[ConnectedAccount(id=each) for each in ids], next_page_token=token)
        for token, ids in pages
    ]
    found = await client.call("list", "p", platform="twitter", statuses=[AccountStatus.EXPIRED], page_size=2)
    assert [account.id for account in found] == ["1", "2", "3"]
    asked = pb.ListAccountsRequest(profile_id="p", platform="twitter", statuses=["ACCOUNT_STATUS_EXPIRED"], page_size=2)
    for request, token in zip(told.requests, ["", "t1", "t2"], strict=True):
        asked.page_token = token
        assert request == asked


async def test_a_page_is_fetched_only_when_it_is_needed(client: Either, told: Told) -> None:
    told.line = [pb.ListAccountsResponse(accounts=[ACCOUNT], next_page_token="t1")]
    assert (await client.first("list")).id == ACCOUNT.id
    assert told.requests == [pb.ListAccountsRequest()]


async def test_a_refresh_says_whether_it_brought_a_new_token(client: Either, told: Told) -> None:
    told.line = [pb.RefreshAccountResponse(account=ACCOUNT, refreshed=True)]
    assert (await client.call("refresh", "1")).refreshed
    again = await client.call("refresh", "1", min_remaining_lifetime=timedelta(minutes=5))
    assert (again.refreshed, again.account.handle) == (False, ACCOUNT.handle)
    asked = pb.RefreshAccountRequest(id="1")
    asked.min_remaining_lifetime.seconds = 300
    assert told.requests == [pb.RefreshAccountRequest(id="1"), asked]


async def test_a_revoke_says_what_the_platform_confirmed(client: Either, told: Told) -> None:
    account = ConnectedAccount(id="1", status="ACCOUNT_STATUS_REVOKED")
    told.line = [pb.RevokeResponse(account=account, platform_revocation="PLATFORM_REVOCATION_KEPT_FOR_SIBLING")]
    revoked = await client.call("revoke", "1")
    assert told.requests == [pb.RevokeRequest(id="1")]
    assert revoked.account.status is AccountStatus.REVOKED
    assert revoked.platform_revocation is PlatformRevocation.KEPT_FOR_SIBLING


async def test_a_deleted_profile_has_a_receipt(client: Either, told: Told) -> None:
    erased = pb.ErasedAccount(account_id="1", platform="twitter", platform_revocation="PLATFORM_REVOCATION_CONFIRMED")
    erased.erase_time.FromDatetime(TIME)
    told.line = [pb.DeleteProfileResponse(erasure_id="e", erase_time=erased.erase_time, accounts=[erased])]
    receipt = await client.call("delete_profile", "p")
    assert told.requests == [pb.DeleteProfileRequest(profile_id="p")]
    assert (receipt.erasure_id, receipt.erase_time) == ("e", TIME)
    assert receipt.accounts == (ErasedAccount("1", "twitter", PlatformRevocation.CONFIRMED, TIME, None),)


@pytest.mark.parametrize(
    ("ours", "proto", "prefix"),
    [
        (AccountStatus, connected_account_pb2.AccountStatus.DESCRIPTOR, "ACCOUNT_STATUS_"),
        (StatusReason, connected_account_pb2.StatusReason.DESCRIPTOR, "STATUS_REASON_"),
        (PlatformRevocation, pb.PlatformRevocation.DESCRIPTOR, "PLATFORM_REVOCATION_"),
    ],
)
def test_an_enum_is_that_of_the_proto(ours: type[IntEnum], proto: EnumDescriptor, prefix: str) -> None:
    assert {f"{prefix}{each.name}": each.value for each in ours} == {each.name: each.number for each in proto.values}


async def test_a_status_of_a_newer_service_is_unspecified(client: Either, told: Told) -> None:
    told.line = [pb.GetAccountResponse(account=ConnectedAccount(id="1", status=99, status_reason=99))]  # type: ignore[arg-type]
    account = await client.call("get", "1")
    assert (account.status, account.status_reason) == (AccountStatus.UNSPECIFIED, StatusReason.UNSPECIFIED)


@pytest.mark.parametrize("kind", [Accounts, AsyncAccounts])
async def test_a_service_that_shakes_hands_after_half_a_second_is_reached(kind: type, served: tuple[Told, str]) -> None:
    told, target = served
    host, _, port = target.rpartition(":")

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def far_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)  # gRPC's clock is its own
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pipe(reader, back), pipe(there, writer), return_exceptions=True)
        back.close()
        writer.close()

    server = await asyncio.start_server(far_away, "127.0.0.1", 0)
    async with Either(kind, f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        await client.call("revoke", "1")
    server.close()
    assert told.requests == [pb.RevokeRequest(id="1")]


async def test_a_call_goes_out_under_the_request_id_of_its_caller(client: Either, told: Told) -> None:
    with request_id("job/17"):
        await client.call("get", "1")
        with request_id("step:2"):
            await client.call("call", "1", "GET", "/2/users/1")
    await client.call("get", "1")
    assert [each.get("x-request-id") for each in told.metadata] == ["job/17", "step:2", None]


@pytest.mark.parametrize("text", ["", "a" * 65, "two words", "line\n", "ä"])
def test_a_request_id_that_the_service_would_not_take_is_refused(text: str) -> None:
    assert not origin.REQUEST_ID.fullmatch(text) and correlation.REQUEST_ID.pattern == origin.REQUEST_ID.pattern
    with pytest.raises(ValueError, match="1 to 64 characters"), request_id(text):
        pass
