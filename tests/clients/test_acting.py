"""What the clients send on accounts' behalf and what they return of it, sync and asyncio."""

import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1 import platform_service_pb2 as platform_pb
from synposter.accounts.v1.error_reason_pb2 import ErrorReason
from synposter_accounts import AccountExpired, AccountsError, DeadlineExceeded, RateLimit, Usage

from tests.clients.either import Either
from tests.clients.told import HANG, Told, failure, info

TIME = datetime(2026, 11, 24, 12, 0, 0, 5, tzinfo=UTC)
MIB = 1024 * 1024
POST = ("1", "POST", "/2/tweets")
MAYBE_DONE = {"OUTCOME_UNKNOWN", "RESPONSE_WITHHELD", "INTERNAL"}
REASONS = [name.removeprefix("ERROR_REASON_") for name, value in ErrorReason.items() if value]


async def refused(client: Either, **sent: Any) -> AccountsError:
    with pytest.raises(AccountsError) as caught:
        await client.call("call", *POST, **sent)
    return caught.value


async def test_a_call_is_sent_as_it_was_asked(client: Either, told: Told) -> None:
    await client.call(
        "call", *POST, query=[("a", "1"), ("a", "2")], headers={"accept-language": "de"}, json={"text": "hé"},
        timeout=2.5, min_remaining_lifetime=timedelta(minutes=5), refuse_if_limited=True,
    )  # fmt: skip
    await client.call("call", "1", "PUT", "/2/x", query={"b": "3"}, body=b"\x00", content_type="image/png")
    asked = platform_pb.CallRequest(
        account_id="1", method="POST", path="/2/tweets", content_type="application/json", refuse_if_limited=True,
        body=rb'{"text": "h\u00e9"}',
        query=[platform_pb.QueryParameter(name="a", value="1"), platform_pb.QueryParameter(name="a", value="2")],
        headers=[platform_pb.Header(name="accept-language", value="de")],
    )  # fmt: skip
    asked.timeout.FromTimedelta(timedelta(seconds=2.5))
    asked.min_remaining_lifetime.seconds = 300
    plain = platform_pb.CallRequest(account_id="1", method="PUT", path="/2/x", body=b"\x00", content_type="image/png")
    plain.query.add(name="b", value="3")
    plain.timeout.seconds = 30
    assert told.requests == [asked, plain]


async def test_the_service_has_time_to_tell_the_outcome(client: Either, told: Told) -> None:
    await client.call("call", *POST, timeout=60)
    [left] = told.left
    assert left > 60.5, "the service is cut off before it has told what became of the call"


async def test_an_answer_comes_whatever_its_status(client: Either, told: Told) -> None:
    answer = platform_pb.CallResponse(
        status_code=404, headers=[platform_pb.Header(name="content-type", value="application/json")], body=b'{"a": [1]}'
    )
    answer.rate_limit.limit, answer.rate_limit.remaining = 100, 7
    answer.rate_limit.reset_time.FromDatetime(TIME)
    told.line = [answer, platform_pb.CallResponse(status_code=201, body=b"<html>")]
    gone, page = await client.call("call", *POST), await client.call("call", *POST)
    assert (gone.status_code, gone.ok, gone.json()) == (404, False, {"a": [1]})
    assert gone.headers == {"content-type": "application/json"}
    assert gone.rate_limit == RateLimit(100, 7, TIME)
    assert (page.ok, page.rate_limit, page.body) == (True, None, b"<html>")
    with pytest.raises(ValueError, match="Expecting value"):
        page.json()
    assert "html" not in repr(page)


async def test_an_answer_may_have_eight_mebibytes(client: Either, told: Told) -> None:
    told.line = [platform_pb.CallResponse(status_code=200, body=bytes(8 * MIB))]
    assert len((await client.call("call", *POST, body=bytes(8 * MIB), content_type="video/mp4")).body) == 8 * MIB


async def test_json_and_a_body_are_one_too_many(client: Either, told: Told) -> None:
    with pytest.raises(ValueError, match="either"):
        await client.call("call", *POST, json={}, body=b"x", content_type="text/plain")
    assert told.requests == []


async def test_a_parameter_or_header_that_is_no_text_is_named(client: Either, told: Told) -> None:
    with pytest.raises(TypeError, match="query: max_results must be a str, not int"):
        await client.call("call", "1", "GET", "/2/x", query={"max_results": 20})
    with pytest.raises(TypeError, match="headers: accept must be a str, not bytes"):
        await client.call("call", "1", "GET", "/2/x", headers={"accept": b"text/plain"})
    assert told.requests == []


@pytest.mark.parametrize("reason", REASONS)
async def test_an_error_tells_whether_it_may_have_been_done(client: Either, told: Told, reason: str) -> None:
    told.line = [failure(code_pb2.UNAVAILABLE, info(reason))]
    error = await refused(client)
    assert error.may_have_been_done == (reason in MAYBE_DONE)
    assert len(told.requests) == 1, "a call that may change something was repeated"


@pytest.mark.parametrize("answer", [failure(code_pb2.UNAVAILABLE), failure(code_pb2.UNKNOWN, info("FROM_THE_FUTURE"))])
async def test_without_a_reason_that_is_known_it_may_have_been_done(client: Either, told: Told, answer: Any) -> None:
    told.line = [answer]
    assert (await refused(client)).may_have_been_done
    assert len(told.requests) == 1


async def test_a_service_that_does_not_answer_in_time_may_have_done_it(client: Either, told: Told) -> None:
    told.line = [HANG]
    error = await refused(client, timeout=0.1)
    assert isinstance(error, DeadlineExceeded) and error.may_have_been_done


async def test_an_expired_account_brings_what_to_begin(client: Either, told: Told) -> None:
    begin = pb.BeginConnectRequest(profile_id="p", platform="twitter", account_id="9", scopes=["a", "b"])
    told.line = [failure(code_pb2.FAILED_PRECONDITION, info("ACCOUNT_EXPIRED"), begin)]
    error = await refused(client)
    assert isinstance(error, AccountExpired) and error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.reconnect is not None
    await client.call("begin_connect", **error.reconnect, return_url="https://r")
    begin.return_url = "https://r"
    assert told.requests[1] == begin
    assert pickle.loads(pickle.dumps(error)).reconnect == error.reconnect


async def test_usage_comes_page_by_page_with_every_field(client: Either, told: Told) -> None:
    sent = platform_pb.Usage()
    for field in platform_pb.Usage.DESCRIPTOR.fields:
        if field.message_type:
            getattr(sent, field.name).FromDatetime(TIME)
        else:
            setattr(sent, field.name, 7 if field.name == "status_code" else field.name)
    told.line = [
        platform_pb.ListUsageResponse(usages=[sent], next_page_token="t1"),
        platform_pb.ListUsageResponse(usages=[platform_pb.Usage(use_id="2")]),
    ]
    first, second = await client.call("list_usage", "1", start_time=TIME, end_time=TIME, page_size=1)
    assert Usage.__slots__ == tuple(field.name for field in platform_pb.Usage.DESCRIPTOR.fields)
    for field in platform_pb.Usage.DESCRIPTOR.fields:
        one = TIME if field.message_type else 7 if field.name == "status_code" else field.name
        assert getattr(first, field.name) == one
    assert (second.use_id, second.time) == ("2", None)
    asked = platform_pb.ListUsageRequest(account_id="1", page_size=1)
    asked.start_time.FromDatetime(TIME)
    asked.end_time.FromDatetime(TIME)
    after = platform_pb.ListUsageRequest()
    after.CopyFrom(asked)
    after.page_token = "t1"
    assert told.requests == [asked, after]


async def test_usage_is_of_an_account_or_of_a_profile(client: Either, told: Told) -> None:
    assert await client.call("list_usage", profile_id="p") == []
    assert told.requests == [platform_pb.ListUsageRequest(profile_id="p")]
    for neither_or_both in ({}, {"account_id": "1", "profile_id": "p"}):
        with pytest.raises(ValueError, match="either"):
            await client.call("list_usage", **neither_or_both)


async def test_a_time_without_a_zone_is_refused_since_it_could_mean_any(client: Either, told: Told) -> None:
    for name in ("start_time", "end_time"):
        with pytest.raises(ValueError, match=name):
            await client.call("list_usage", "1", **{name: TIME.replace(tzinfo=None)})
    assert told.requests == []


async def test_a_list_of_usage_is_tried_again(client: Either, told: Told) -> None:
    told.line = [failure(code_pb2.UNAVAILABLE, info("STORE_UNAVAILABLE"))]
    assert await client.call("list_usage", "1") == []
    assert len(told.requests) == 2
