"""What the clients raise: one class per reason, with its facts, and which calls are tried again."""

import asyncio
import pickle
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import synposter_accounts
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1.error_reason_pb2 import ErrorReason
from synposter_accounts import (
    Accounts,
    AccountsError,
    AsyncAccounts,
    DeadlineExceeded,
    InvalidField,
    RateLimited,
    ServiceUnreachable,
    StoreUnavailable,
)

from tests.clients.either import Either
from tests.clients.told import HANG, Told, failure, info

README = Path(__file__).parents[2] / "clients/python/README.md"
REASONS = [name.removeprefix("ERROR_REASON_") for name, value in ErrorReason.items() if value]
GARBLED_INFO = failure(code_pb2.ABORTED, info("ACCOUNT_NOT_FOUND"))
GARBLED_INFO.details[0].value = b"\xff"
AWAY = failure(code_pb2.UNAVAILABLE, info("STORE_UNAVAILABLE"))


async def raised_by(client: Either, name: str = "revoke", *arguments: Any) -> AccountsError:
    with pytest.raises(AccountsError) as caught:
        await client.call(name, *(arguments or ("1",)))
    return caught.value


@pytest.mark.parametrize("reason", REASONS)
async def test_each_reason_has_an_error_of_its_own(client: Either, told: Told, reason: str) -> None:
    told.line = [failure(code_pb2.FAILED_PRECONDITION, info(reason, account_id="7"))]
    error = await raised_by(client)
    assert type(error) is not AccountsError
    assert type(error).reason == error.reason == reason
    assert error.metadata == {"account_id": "7"}
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert getattr(synposter_accounts, type(error).__name__) is type(error)
    assert type(error).__name__ in synposter_accounts.__all__


@pytest.mark.parametrize("reason", REASONS)
def test_the_readme_names_the_error_of_each_reason(reason: str) -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `(\w+)` \|", README.read_text(), re.MULTILINE))
    assert getattr(synposter_accounts, rows[reason]).reason == reason


async def test_the_fields_at_fault_are_named(client: Either, told: Told) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="f", description="why")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    told.line = [failure(code_pb2.INVALID_ARGUMENT, info("INVALID_FIELD"), bad)]
    error = await raised_by(client, "begin_connect", "p", "twitter")
    assert isinstance(error, InvalidField)
    assert (error.field_violations, error.retry_after) == ({"f": "why"}, None)


async def test_an_error_says_when_to_try_again(client: Either, told: Told) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=7, nanos=500_000_000))
    told.line = [failure(code_pb2.RESOURCE_EXHAUSTED, retry, info("RATE_LIMITED"))]
    error = await raised_by(client)
    assert isinstance(error, RateLimited)
    assert error.retry_after == timedelta(seconds=7.5)


async def test_a_reason_of_a_newer_service_is_the_base_class(client: Either, told: Told) -> None:
    told.line = [failure(code_pb2.UNAVAILABLE, info("FROM_THE_FUTURE"))]
    error = await raised_by(client)
    assert (type(error), error.reason) == (AccountsError, "FROM_THE_FUTURE")


async def test_a_reason_of_another_domain_is_not_ours(client: Either, told: Told) -> None:
    foreign = error_details_pb2.ErrorInfo(domain="proxy.example", reason="ACCOUNT_NOT_FOUND", metadata={"a": "b"})
    told.line = [failure(code_pb2.UNAVAILABLE, foreign)]
    error = await raised_by(client)
    assert (type(error), error.reason, error.metadata) == (ServiceUnreachable, "", {})


@pytest.mark.parametrize(
    "garbled",
    [b"\xff\xff", failure(code_pb2.NOT_FOUND).SerializeToString(), GARBLED_INFO.SerializeToString()],
    ids=["bytes", "another status", "a detail"],
)
async def test_garbled_details_leave_the_status_to_tell(client: Either, told: Told, garbled: bytes) -> None:
    told.line = [garbled]
    error = await raised_by(client)
    assert (type(error), error.code, error.reason) == (AccountsError, grpc.StatusCode.ABORTED, "")


async def test_a_call_that_the_service_drops_is_unreachable(client: Either, told: Told) -> None:
    told.line = [failure(code_pb2.CANCELLED)]
    error = await raised_by(client)
    assert (type(error), error.code) == (ServiceUnreachable, grpc.StatusCode.CANCELLED)


async def test_an_error_crosses_processes(client: Either, told: Told) -> None:
    told.line = [failure(code_pb2.UNAVAILABLE, info("STORE_UNAVAILABLE", a="b"))]
    error = await raised_by(client)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error) == "no"
    assert vars(copy) == vars(error)


@pytest.mark.parametrize(("name", "arguments"), [("get", ["1"]), ("list", ["p"])])
async def test_a_read_is_tried_three_times_when_the_service_is_unavailable(
    client: Either, told: Told, name: str, arguments: list[str]
) -> None:
    told.line = [AWAY, AWAY]
    await client.call(name, *arguments)
    assert len(told.requests) == 3
    told.line = [AWAY, AWAY, AWAY]
    assert isinstance(await raised_by(client, name, *arguments), StoreUnavailable)
    assert len(told.requests) == 6


@pytest.mark.parametrize(
    ("name", "arguments", "keywords"),
    [
        ("begin_connect", ["p", "twitter"], {}),
        ("complete_connect", ["p"], {"completion_code": "k"}),
        ("revoke", ["1"], {}),
    ],
)
async def test_a_write_is_never_tried_again(
    client: Either, told: Told, name: str, arguments: list[str], keywords: dict[str, str]
) -> None:
    told.line = [AWAY]
    with pytest.raises(StoreUnavailable):
        await client.call(name, *arguments, **keywords)
    assert len(told.requests) == 1


async def test_a_read_that_fails_for_another_reason_is_not_tried_again(client: Either, told: Told) -> None:
    told.line = [failure(code_pb2.NOT_FOUND, info("ACCOUNT_NOT_FOUND"))]
    await raised_by(client, "get")
    assert told.requests == [pb.GetAccountRequest(id="1")]


@pytest.mark.parametrize("kind", [Accounts, AsyncAccounts])
async def test_a_service_that_is_not_there_is_unreachable(kind: type) -> None:
    async with Either(kind, "127.0.0.1:1") as nobody:
        error = await raised_by(nobody)
    assert (type(error), error.reason) == (ServiceUnreachable, "")


async def test_a_call_under_way_when_its_client_is_closed_is_unreachable_and_a_later_one_is_a_mistake(
    client: Either, told: Told
) -> None:
    told.line = [HANG]
    under_way = asyncio.create_task(raised_by(client))
    async with asyncio.timeout(10):
        while not told.requests:  # noqa: ASYNC110  (the service's thread tells)
            await asyncio.sleep(0.01)
    await client.close()
    error = await under_way
    assert isinstance(error, ServiceUnreachable) and error.may_have_been_done
    with pytest.raises(ValueError, match="closed"):
        await client.call("revoke", "1")


@pytest.mark.parametrize("kind", [Accounts, AsyncAccounts])
async def test_a_service_that_does_not_answer_in_time_exceeds_the_deadline(
    kind: type, served: tuple[Told, str]
) -> None:
    told, target = served
    told.line = [HANG]
    async with Either(kind, target, timeout=0.5) as client:
        assert type(await raised_by(client)) is DeadlineExceeded
    assert told.requests == [pb.RevokeRequest(id="1")]
