"""What callers are told about failures, over a real channel."""

import asyncio
import logging
import re
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest
from google.rpc import error_details_pb2
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1 import error_reason_pb2

from server.accounts.errors import (
    AccountError,
    AccountNotFound,
    ConnectRefused,
    InvalidField,
    Reason,
    StoreUnavailable,
    UnknownPlatform,
)
from server.rpc.errors import CODES, status_of

PROTO = Path(__file__).parents[2] / "protos/synposter/accounts/v1/error_reason.proto"
CODE_IN_COMMENT = re.compile(r"^  // ([A-Z_]+)\. .*\n(?:  // .*\n)*  ERROR_REASON_(\w+) = \d+;$", re.MULTILINE)
CANARY = "canary-2f6b"


def codes_in_the_proto() -> dict[str, str]:
    return {reason: code for code, reason in CODE_IN_COMMENT.findall(PROTO.read_text())}


def get(tools):
    return pb.GetAccountRequest(id=tools.ID)


def test_each_reason_has_the_code_that_the_proto_promises() -> None:
    assert {reason.value: code.name for reason, code in CODES.items()} == codes_in_the_proto()


def test_the_reasons_are_those_of_the_proto_enum() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
    assert {reason.value for reason in Reason} == names == set(CODES)


@pytest.mark.parametrize("reason", Reason)
async def test_a_caller_can_decide_by_reason(edge, tools, reason) -> None:
    edge.use_cases.answers["get"] = ConnectRefused(reason, "in words", connect_id="connect-1")
    refusal = await edge.refusal("GetAccount", get(tools))
    assert refusal.code.name == codes_in_the_proto()[reason]
    assert (refusal.reason, refusal.domain) == (reason.value, "accounts.synposter")
    assert refusal.facts == {"connect_id": "connect-1"}
    assert refusal.text == refusal.status.message == "in words"
    assert refusal.violations == []
    assert refusal.retry_after is None


async def test_an_invalid_field_is_named(edge, tools) -> None:
    edge.use_cases.answers["get"] = InvalidField("account_id", "belongs to another profile")
    refusal = await edge.refusal("GetAccount", get(tools))
    assert refusal.violations == [("account_id", "belongs to another profile")]
    assert refusal.facts == {"field": "account_id"}


async def test_an_unknown_platform_is_answered_with_the_known_ones(edge) -> None:
    edge.use_cases.answers["list"] = UnknownPlatform("myspace", ("linkedin", "twitter"))
    refusal = await edge.refusal("ListAccounts", pb.ListAccountsRequest(profile_id="p", platform="myspace"))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.facts == {"platform": "myspace", "known": "linkedin, twitter"}
    assert refusal.violations == [("platform", "'myspace' is not known here; known: linkedin, twitter")]


async def test_a_caller_is_told_when_to_try_again(edge, tools) -> None:
    error = ConnectRefused(Reason.RATE_LIMITED, "too many calls")
    error.retry_after = timedelta(seconds=2, milliseconds=500)
    edge.use_cases.answers["get"] = error
    assert (await edge.refusal("GetAccount", get(tools))).retry_after == timedelta(seconds=2.5)


def test_a_store_that_is_away_says_when_to_try_again() -> None:
    details = status_of(StoreUnavailable("away")).details
    retry = error_details_pb2.RetryInfo()
    assert [detail.Unpack(retry) for detail in details].count(True) == 1
    assert retry.retry_delay.seconds == 1


async def test_a_fault_is_hidden_behind_an_incident_that_the_log_explains(edge, tools, caplog) -> None:
    edge.use_cases.answers["get"] = ValueError(CANARY)
    refusal = await edge.refusal("GetAccount", get(tools))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert CANARY not in refusal.text + refusal.raw
    assert "ValueError" not in refusal.text + refusal.raw
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.incident == refusal.facts["incident"]
    assert CANARY in str(record.exc_info[1])


async def test_each_fault_has_an_incident_of_its_own(edge, tools) -> None:
    edge.use_cases.answers["get"] = ValueError()
    incidents = {(await edge.refusal("GetAccount", get(tools))).facts["incident"] for _ in range(2)}
    assert len(incidents) == 2


FAULTS = {
    "a domain error without reason": AccountError(CANARY),
    "a timeout": TimeoutError(CANARY),
    "a group": ExceptionGroup(CANARY, [ValueError()]),
    "a stop of iteration": StopAsyncIteration(CANARY),
    "nothing returned": None,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_of_a_use_case_is_answered_with_unknown(edge, tools, fault) -> None:
    edge.use_cases.answers["get"] = FAULTS[fault]
    refusal = await edge.refusal("GetAccount", get(tools))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert CANARY not in refusal.text + refusal.raw


async def test_a_request_that_is_no_message_is_an_invalid_field(edge, tools) -> None:
    get_account = edge.channel.unary_unary("/synposter.accounts.v1.AccountService/GetAccount")
    for garbage in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get_account(garbage, metadata=tools.bearer("full-key"))
        assert tools.refusal_of(caught.value).facts == {"field": "request"}
    assert edge.use_cases.calls == []


@pytest.mark.parametrize("long", ["x" * 200_000, "\N{ROCKET}" * 50_000, "\udcff" * 100], ids=["long", "wide", "broken"])
async def test_an_error_about_any_text_reaches_the_caller(edge, tools, long) -> None:
    edge.use_cases.answers["get"] = UnknownPlatform(long, ("twitter",))
    refusal = await edge.refusal("GetAccount", get(tools))
    assert (refusal.reason, refusal.violations[0][0]) == ("UNKNOWN_PLATFORM", "platform")
    assert refusal.facts["known"] == "twitter"


async def test_a_missing_account_is_not_found(edge, tools) -> None:
    edge.use_cases.answers["get"] = AccountNotFound(tools.ID)
    refusal = await edge.refusal("GetAccount", get(tools))
    assert (refusal.code, refusal.facts) == (grpc.StatusCode.NOT_FOUND, {"account_id": tools.ID})


async def test_a_call_given_up_by_its_caller_cancels_the_use_case_and_is_no_fault(edge, tools, caplog) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    edge.use_cases.answers["get"] = hang
    call = edge.stub.GetAccount(get(tools), metadata=tools.bearer("full-key"))
    async with asyncio.timeout(10):
        waiting = asyncio.ensure_future(call.code())
        await begun.wait()
        call.cancel()
        await cancelled.wait()
        assert await waiting is grpc.StatusCode.CANCELLED
    assert [record for record in caplog.records if record.name.startswith("server.")] == []


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("told_in", ["protos/synposter/accounts/v1/error_reason.proto", "docs/errors.md"])
def test_each_limit_that_a_refusal_names_is_explained(told_in: str) -> None:
    sources = "".join(file.read_text() for file in (ROOT / "server").rglob("*.py"))
    named = set(re.findall(r'\blimit="(\w+)"|\brefuse\("(\w+)"', sources))
    told = (ROOT / told_in).read_text()
    settings = {"rate", "accounts_a_minute", "revokes_a_minute", "watchers"}  # docs/errors.md: "the setting of yours"
    limits = {one or other for one, other in named} - (settings if told_in.startswith("docs") else set())
    assert limits and not {limit for limit in limits if f"`{limit}`" not in told}
