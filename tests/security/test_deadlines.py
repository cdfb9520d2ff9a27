"""No call lasts for ever, and none begins that cannot be answered in time (row G3)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1.account_service_pb2_grpc import AccountServiceStub

from server.rpc import guard
from tests.e2e.conftest import whole_service
from tests.rpc.conftest import ID, Edge, bearer, make_account

GET = pb.GetAccountRequest(id=ID)
DEFAULT = 0.3


@pytest.fixture
async def edge(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Edge]:
    """A server that gives calls without a deadline a third of a second."""
    monkeypatch.setattr(guard, "DEFAULT_SECONDS", DEFAULT)
    edge = Edge()
    await edge.start()
    yield edge
    await edge.stop()


async def status(call: grpc.aio.Call) -> grpc.StatusCode:
    async with asyncio.timeout(10):
        return await call.code()


async def test_a_call_with_too_little_time_left_begins_nothing(edge: Edge) -> None:
    for seconds in (0.01, 0.05, 0.09):
        call = edge.stub.GetAccount(GET, metadata=bearer("full-key"), timeout=seconds)
        assert await status(call) is grpc.StatusCode.DEADLINE_EXCEEDED
    await edge.call("GetAccount", GET)
    assert len(edge.use_cases.calls) == 1


async def test_a_call_without_a_deadline_ends_all_the_same(edge: Edge) -> None:
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    edge.use_cases.answers["get"] = hang
    call = edge.stub.GetAccount(GET, metadata=bearer("full-key"))
    assert await status(call) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "had no deadline" in await call.details()
    assert ended.is_set(), "nothing of it goes on"


async def test_a_call_with_a_deadline_may_take_longer_than_the_default(edge: Edge) -> None:
    async def slowly() -> object:
        await asyncio.sleep(DEFAULT * 2)
        return make_account()

    edge.use_cases.answers["get"] = slowly
    await edge.call("GetAccount", GET, timeout=10)


async def test_a_timeout_inside_is_no_deadline_of_the_caller(edge: Edge) -> None:
    edge.use_cases.answers["get"] = TimeoutError("the database")
    assert await status(edge.stub.GetAccount(GET, metadata=bearer("full-key"))) is grpc.StatusCode.INTERNAL


async def test_a_stream_without_a_deadline_lasts(edge: Edge) -> None:
    watching = health_pb2_grpc.HealthStub(edge.channel).Watch(HealthCheckRequest())
    assert (await watching.read()).status == HealthCheckResponse.SERVING
    await asyncio.sleep(DEFAULT * 2)
    edge.server.not_serving()
    assert (await watching.read()).status == HealthCheckResponse.NOT_SERVING
    watching.cancel()


async def test_a_refresh_that_outlasts_its_call_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "DEFAULT_SECONDS", DEFAULT)
    async with (
        whole_service(tmp_path / "deployment") as whole,
        grpc.aio.insecure_channel(whole.local.target) as channel,
    ):
        account = await whole.connect()
        whole.clock.offset += whole.app.platforms["twitter"].rules.default_access_token_lifetime
        await whole.sandbox.fault("token", "hold_before", times=-1)
        refresh = AccountServiceStub(channel).RefreshAccount(  # type: ignore[no-untyped-call]
            pb.RefreshAccountRequest(id=account.id), metadata=bearer(whole.local.api_key)
        )
        assert await status(refresh) is grpc.StatusCode.DEADLINE_EXCEEDED
        await whole.sandbox.clear_faults()
        await whole.app.refresher.settled()
        after = await whole.accounts.get(account.id)
        assert after.last_refresh_time is not None
        [grant] = await whole.sandbox.ledger()
        assert grant["refreshes"] == 1
