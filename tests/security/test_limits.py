"""A stolen credential harvests little and breaks little (rows E3, E7): limits of calls, accounts and revokes."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc
import pytest
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1.operations_service_pb2 import ExplainAccountRequest, ListAuditEventsRequest

from server.accounts.background import Background
from server.accounts.callers import Caller, Limits, Permission
from server.accounts.events import Event, EventPage
from server.accounts.model import ErasedAccount, Page, PlatformRevocation, Receipt
from server.rpc import guard
from server.rpc.guard import seen_through
from tests.rpc.conftest import ID, MOMENT, Edge, bearer, make_account

ALL = frozenset(Permission)
EXHAUSTED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")


@asynccontextmanager
async def limited(**limits: float) -> AsyncIterator[Edge]:
    """A server whose callers `one` and `two` have these limits, each its own."""
    edge = Edge(by_key={name: Caller(name, ALL, limits=Limits(**limits)) for name in ("one", "two")})  # type: ignore[arg-type]
    await edge.start()
    try:
        yield edge
    finally:
        await edge.stop()


def get(number: int) -> pb.GetAccountRequest:
    return pb.GetAccountRequest(id=str(uuid.UUID(int=number)))


async def test_the_1001st_account_in_a_minute_is_refused_and_known_ones_are_not() -> None:
    async with limited(accounts_a_minute=1_000) as edge:
        for number in range(1_000):
            await edge.call("GetAccount", get(number), key="one")
        edge.now += 20
        refusal = await edge.refusal("GetAccount", get(1_000), key="one")
        assert (refusal.code, refusal.reason) == EXHAUSTED
        assert (refusal.retry_after, refusal.facts) == (timedelta(seconds=40), {"limit": "accounts_a_minute"})
        for method, request in (
            ("RefreshAccount", pb.RefreshAccountRequest(id=ID)),
            ("Revoke", pb.RevokeRequest(id=ID)),
            ("ExplainAccount", ExplainAccountRequest(id=ID)),
            ("BeginConnect", pb.BeginConnectRequest(profile_id="p", platform="twitter", account_id=ID)),
            ("ListAccounts", pb.ListAccountsRequest(profile_id="p")),
        ):
            assert (await edge.refusal(method, request, key="one")).reason == "RATE_LIMITED", method
        assert len(edge.use_cases.calls) == 1_000
        await edge.call("GetAccount", get(7), key="one")
        await edge.call("BeginConnect", pb.BeginConnectRequest(profile_id="p", platform="twitter"), key="one")
        await edge.call("GetAccount", get(1_000), key="two")
        edge.now += 40
        await edge.call("GetAccount", get(1_000), key="one")


async def test_accounts_that_a_list_shows_count() -> None:
    async with limited(accounts_a_minute=10) as edge:
        shown = tuple(make_account(id=str(uuid.UUID(int=number))) for number in range(10))
        edge.use_cases.answers["list"] = Page(shown, more=False)
        await edge.call("ListAccounts", pb.ListAccountsRequest(profile_id="p"), key="one")
        await edge.call("GetAccount", get(3), key="one")
        assert (await edge.refusal("GetAccount", get(11), key="one")).reason == "RATE_LIMITED"


async def test_lists_that_are_asked_for_at_once_show_no_more_than_one_after_the_other() -> None:
    async with limited(accounts_a_minute=10) as edge:
        begun = 0

        async def page() -> Page:
            nonlocal begun
            begun += 1
            await asyncio.sleep(0.05)  # as a database that others wait for, too
            return Page(tuple(make_account(id=str(uuid.uuid4())) for _ in range(10)), more=False)

        edge.use_cases.answers["list"] = page
        asked = [edge.call("ListAccounts", pb.ListAccountsRequest(profile_id="p"), key="one") for _ in range(20)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert begun == 1 and [isinstance(each, grpc.aio.AioRpcError) for each in outcomes].count(False) == 1
        edge.now += 60
        await edge.call("ListAccounts", pb.ListAccountsRequest(profile_id="p"), key="one")


async def test_a_caller_that_leaves_while_its_list_waits_for_its_turn_holds_up_no_other() -> None:
    async with limited(accounts_a_minute=10) as edge:
        go_on = asyncio.Event()

        async def page() -> Page:
            await go_on.wait()
            return Page((), more=False)

        edge.use_cases.answers["list"] = page
        request = pb.ListAccountsRequest(profile_id="p")
        first = asyncio.create_task(edge.call("ListAccounts", request, key="one"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await edge.call("ListAccounts", request, key="one", timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        go_on.set()
        await first
        await edge.call("ListAccounts", request, key="one")


async def test_a_list_without_a_deadline_waits_for_its_turn_no_longer_than_any_call_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "DEFAULT_SECONDS", 0.2)
    async with limited(accounts_a_minute=10) as edge:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def page() -> Page:
            begun.set()
            await go_on.wait()
            return Page((), more=False)

        edge.use_cases.answers["list"] = page
        request = pb.ListAccountsRequest(profile_id="p")
        first = asyncio.create_task(edge.call("ListAccounts", request, key="one"))
        await begun.wait()
        async with asyncio.timeout(5):
            code = await edge.stub.ListAccounts(request, metadata=bearer("one")).code()
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        go_on.set()
        await first


async def test_the_1001st_revoke_in_a_minute_is_refused_and_reads_go_on() -> None:
    async with limited(revokes_a_minute=1_000) as edge:
        revoke = pb.RevokeRequest(id=ID)
        for _ in range(1_000):
            await edge.call("Revoke", revoke, key="one")
        refusal = await edge.refusal("Revoke", revoke, key="one")
        assert (refusal.code, refusal.reason) == EXHAUSTED
        assert (refusal.retry_after, refusal.facts) == (timedelta(seconds=60), {"limit": "revokes_a_minute"})
        assert len(edge.use_cases.calls) == 1_000
        await edge.call("GetAccount", get(1), key="one")
        await edge.call("Revoke", revoke, key="two")


async def test_the_accounts_that_a_deleted_profile_had_count_as_revokes_and_its_receipt_counts_once() -> None:
    async with limited(revokes_a_minute=100) as edge:
        erased = tuple(
            ErasedAccount(str(uuid.UUID(int=number)), "twitter", PlatformRevocation.CONFIRMED, MOMENT, MOMENT)
            for number in range(95)
        )
        edge.use_cases.answers["delete_profile"] = Receipt(ID, MOMENT, erased)
        delete = pb.DeleteProfileRequest(profile_id="p")
        for _ in range(5):
            await edge.call("DeleteProfile", delete, key="one")
        for method, request in (("DeleteProfile", delete), ("Revoke", pb.RevokeRequest(id=ID))):
            assert (await edge.refusal(method, request, key="one")).facts == {"limit": "revokes_a_minute"}
        edge.now += 60
        await edge.call("DeleteProfile", delete, key="one")


async def test_a_deletion_whose_caller_does_not_wait_is_carried_out_and_counts() -> None:
    begun, go_on, counted = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def delete() -> str:
        begun.set()
        await go_on.wait()
        return "receipt"

    call = asyncio.create_task(
        seen_through(Background(), delete(), lambda receipt: counted.set() if receipt == "receipt" else None)
    )
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not counted.is_set()
    go_on.set()
    async with asyncio.timeout(5):
        await counted.wait()


async def test_calls_over_the_rate_are_refused_whatever_they_are_until_time_has_passed() -> None:
    async with limited(rate=5) as edge:
        for _ in range(5):
            await edge.call("GetAccount", get(1), key="one")
        refusal = await edge.refusal("GetAccount", get(1), key="one")
        assert (refusal.code, refusal.reason, refusal.facts) == (*EXHAUSTED, {"limit": "rate"})
        assert refusal.retry_after == timedelta(seconds=0.2)
        assert (await edge.refusal("ListAccounts", pb.ListAccountsRequest(), key="one")).reason == "RATE_LIMITED"
        await edge.call("GetAccount", get(1), key="two")
        edge.now += 0.2
        await edge.call("GetAccount", get(1), key="one")


async def test_calls_that_are_refused_for_another_reason_count_against_the_rate() -> None:
    async with limited(rate=2) as edge:
        for _ in range(2):
            assert (
                await edge.refusal("GetAccount", pb.GetAccountRequest(id="no id"), key="one")
            ).reason != "RATE_LIMITED"
        assert (await edge.refusal("GetAccount", get(1), key="one")).reason == "RATE_LIMITED"


async def test_accounts_that_the_audit_shows_count() -> None:
    async with limited(accounts_a_minute=2) as edge:
        ids = [str(uuid.UUID(int=number)) for number in range(2)]
        events = tuple(Event(None, MOMENT, "connected", "web", {}, each, each) for each in ids)
        edge.use_cases.answers["page"] = EventPage(events, more=False)
        await edge.call("ListAuditEvents", ListAuditEventsRequest(), key="one")
        for method, request in (("GetAccount", get(7)), ("ListAuditEvents", ListAuditEventsRequest())):
            assert (await edge.refusal(method, request, key="one")).facts == {"limit": "accounts_a_minute"}
        await edge.call("GetAccount", get(1), key="one")
