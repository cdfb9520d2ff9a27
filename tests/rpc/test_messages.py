"""What is told about accounts, and that no message can tell more."""

import importlib
import pkgutil
from datetime import UTC, timedelta

import pytest
import synposter.accounts.v1 as package
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1 import connected_account_pb2

from server.accounts.model import PlatformRevocation, Status, StatusReason
from server.rpc.messages import write_account, write_time

NOT_A_CREDENTIAL = {"page_token", "next_page_token", "resume_token", "access_token_expire_time"}


def file_descriptors():
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(f"{package.__name__}.{module.name}").DESCRIPTOR


def messages_in(container):
    for message in container:
        yield message
        yield from messages_in(message.nested_types)


def test_no_field_of_the_api_can_carry_a_token() -> None:
    messages = [m for file in file_descriptors() for m in messages_in(file.message_types_by_name.values())]
    assert {"ConnectedAccount", "CompleteConnectResponse"} <= {message.name for message in messages}
    suspects = {
        f"{message.name}.{field.name}"
        for message in messages
        for field in message.fields
        if ("token" in field.name or "secret" in field.name) and field.name not in NOT_A_CREDENTIAL
    }
    assert suspects == set()


BODIES = ("CallRequest.body", "CallResponse.body")
"""What callers and platforms say to each other; answers that hold the account's token are withheld."""
CLOSED = ("google.protobuf.Timestamp", "google.protobuf.Duration")


def test_nothing_of_the_api_but_the_bodies_of_calls_is_bytes_or_of_open_type() -> None:
    for file in file_descriptors():
        for message in messages_in(file.message_types_by_name.values()):
            for field in message.fields:
                assert field.type != field.TYPE_BYTES or f"{message.name}.{field.name}" in BODIES
                kind = field.message_type.full_name if field.message_type else "google.protobuf.Timestamp"
                assert kind in CLOSED or kind.startswith("synposter.accounts.v1.")


@pytest.mark.parametrize(
    ("model", "proto", "prefix"),
    [
        (Status, connected_account_pb2.AccountStatus, "ACCOUNT_STATUS_"),
        (StatusReason, connected_account_pb2.StatusReason, "STATUS_REASON_"),
        (PlatformRevocation, pb.PlatformRevocation, "PLATFORM_REVOCATION_"),
    ],
)
def test_the_models_values_are_the_numbers_of_the_proto(model, proto, prefix) -> None:
    told = {f"{prefix}{member.name}": member.value for member in model if member.name != "NONE"}
    assert told == {name: number for name, number in proto.items() if number}
    assert [member.value for member in model if member.name == "NONE"] in ([], [0])


async def test_every_fact_of_an_account_is_told(edge, tools) -> None:
    account = (await edge.call("GetAccount", pb.GetAccountRequest(id=tools.ID))).account
    stored = tools.account()
    told = {field.name for field, _ in account.ListFields()}
    assert told == set(account.DESCRIPTOR.fields_by_name) - {"status_reason"}
    for name in told:
        value = getattr(account, name)
        if isinstance(value, Timestamp):
            assert value.ToDatetime(UTC) == getattr(stored, name)
        elif name.endswith("scopes"):
            assert tuple(value) == getattr(stored, name)
        else:
            assert value == (stored.status.value if name == "status" else getattr(stored, name))


def test_times_that_are_not_there_are_not_told(tools) -> None:
    message = connected_account_pb2.ConnectedAccount()
    write_account(message, tools.account(access_token_expire_time=None, last_refresh_time=None))
    assert not message.HasField("access_token_expire_time")
    assert not message.HasField("last_refresh_time")
    assert message.HasField("status_time")


@given(st.datetimes(timezones=st.just(UTC)))
def test_any_time_is_told_to_the_microsecond(moment) -> None:
    message = Timestamp()
    write_time(message, moment)
    assert message.ToDatetime(UTC) == moment
    assert 0 <= message.nanos < 10**9


async def test_a_begun_connect_is_told(edge, tools) -> None:
    begun = await edge.call("BeginConnect", pb.BeginConnectRequest(profile_id="acme:ada", platform="twitter"))
    assert (begun.connect_id, begun.authorization_url) == ("connect-1", "https://x.example/authorize?state=s")
    assert begun.expire_time.ToDatetime(UTC) == tools.MOMENT


async def test_all_the_accounts_of_a_consent_are_told(edge, tools) -> None:
    edge.use_cases.answers["complete"] = (tools.account(), tools.account(handle="the-page"))
    request = pb.CompleteConnectRequest(profile_id="acme:ada", completion_code="code")
    accounts = (await edge.call("CompleteConnect", request)).accounts
    assert [account.handle for account in accounts] == ["ada", "the-page"]


@pytest.mark.parametrize("outcome", [outcome for outcome in PlatformRevocation if outcome.value])
async def test_a_revoked_account_comes_with_what_the_platform_said(edge, tools, outcome) -> None:
    edge.use_cases.answers["revoke"] = tools.account(
        status=Status.REVOKED, status_reason=StatusReason.REVOKED_BY_CALLER, platform_revocation=outcome
    )
    response = await edge.call("Revoke", pb.RevokeRequest(id=tools.ID))
    assert pb.PlatformRevocation.Name(response.platform_revocation) == f"PLATFORM_REVOCATION_{outcome.name}"
    assert response.account.status == connected_account_pb2.ACCOUNT_STATUS_REVOKED
    assert response.account.status_reason == connected_account_pb2.STATUS_REASON_REVOKED_BY_CALLER


async def test_an_account_s_status_time_is_not_rounded(edge, tools) -> None:
    edge.use_cases.answers["get"] = tools.account(status_time=tools.MOMENT + timedelta(microseconds=1))
    account = (await edge.call("GetAccount", pb.GetAccountRequest(id=tools.ID))).account
    assert account.status_time.nanos == 123458000
