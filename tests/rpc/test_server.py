"""The server's start and stop, and the limits it is started with."""

import asyncio
from datetime import timedelta

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from synposter.accounts.v1 import account_service_pb2 as pb

from server.rpc.call_fields import MOST_TIMEOUT
from server.rpc.server import OPTIONS, CannotListen


async def test_a_second_server_does_not_share_the_port(edge, tools) -> None:
    with pytest.raises(CannotListen, match=edge.address):
        await tools.Edge().server.start(edge.address)


async def test_a_call_in_flight_ends_well_within_the_grace_and_a_watch_does_not_hold_up_the_stop(tools) -> None:
    edge = tools.Edge()
    await edge.start()
    begun, answered = asyncio.Event(), asyncio.Event()

    async def slowly():
        begun.set()
        await answered.wait()
        return tools.account()

    edge.use_cases.answers["get"] = slowly
    async with asyncio.timeout(20):
        watching = health_pb2_grpc.HealthStub(edge.channel).Watch(HealthCheckRequest())
        assert (await watching.read()).status == HealthCheckResponse.SERVING
        call = asyncio.create_task(edge.call("GetAccount", pb.GetAccountRequest(id=tools.ID)))
        await begun.wait()
        stopping = asyncio.create_task(edge.server.stop(timedelta(hours=1)))
        assert (await watching.read()).status == HealthCheckResponse.NOT_SERVING
        assert await watching.read() is grpc.aio.EOF
        assert not stopping.done()
        answered.set()
        assert (await call).account.handle == "ada"
        await stopping
    await edge.channel.close()


async def test_a_call_that_outlasts_the_grace_is_cancelled(tools) -> None:
    edge = tools.Edge()
    await edge.start()
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    edge.use_cases.answers["get"] = hang
    async with asyncio.timeout(20):
        call = asyncio.create_task(edge.call("GetAccount", pb.GetAccountRequest(id=tools.ID)))
        await begun.wait()
        await edge.server.stop(timedelta(0))
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    await edge.channel.close()


async def test_a_server_that_never_started_can_be_stopped(tools) -> None:
    await tools.Edge().server.stop(timedelta(0))


async def test_an_oversized_request_is_refused(edge) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await edge.call("GetAccount", pb.GetAccountRequest(id="x" * 256 * 1024))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert edge.use_cases.calls == []


async def test_there_is_no_other_method(edge, tools) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await edge.channel.unary_unary("/synposter.accounts.v1.AccountService/CreateAccount")(
            b"", metadata=tools.bearer("full-key")
        )
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_connection_that_has_reached_its_age_lives_on_for_the_longest_call() -> None:
    grace = timedelta(milliseconds=dict(OPTIONS)["grpc.max_connection_age_grace_ms"])
    assert grace >= MOST_TIMEOUT + timedelta(seconds=10), "a call that had begun just before is cut off"
