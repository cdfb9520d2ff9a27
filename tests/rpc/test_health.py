"""Health tells the truth about the store and about leaving, to anyone who asks."""

import asyncio

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest

from server.rpc import health
from server.rpc.server import ACCOUNTS, OPERATIONS, PLATFORMS

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
NAMES = ("", ACCOUNTS.full_name, PLATFORMS.full_name, OPERATIONS.full_name)


async def check(edge, service=""):
    stub = health_pb2_grpc.HealthStub(edge.channel)
    return (await stub.Check(HealthCheckRequest(service=service), timeout=10)).status


def watch(edge, service=""):
    return health_pb2_grpc.HealthStub(edge.channel).Watch(HealthCheckRequest(service=service), timeout=20)


@pytest.mark.parametrize("service", NAMES)
async def test_anyone_may_ask_and_hears_serving_only_while_the_store_answers(edge, service) -> None:
    assert await check(edge, service) == SERVING
    edge.ping.error = OSError("the database is gone")
    assert await check(edge, service) == NOT_SERVING
    edge.ping.error = None
    assert await check(edge, service) == SERVING


async def test_the_list_of_services_tells_their_health(edge) -> None:
    edge.ping.error = OSError()
    listed = await health_pb2_grpc.HealthStub(edge.channel).List(HealthListRequest())
    assert {name: told.status for name, told in listed.statuses.items()} == dict.fromkeys(NAMES, NOT_SERVING)


async def test_an_unknown_service_is_not_found(edge) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(edge, "another.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_garbled_question_is_an_invalid_argument(edge) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await edge.channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("service", NAMES)
async def test_a_watch_tells_what_each_probe_finds(edge, service) -> None:
    watching = watch(edge, service)
    assert (await watching.read()).status == SERVING
    edge.ping.error = OSError()
    await edge.server.probe()
    assert (await watching.read()).status == NOT_SERVING
    edge.ping.error = None
    await edge.server.probe()
    assert (await watching.read()).status == SERVING


async def test_a_watch_of_an_unknown_service_says_so(edge) -> None:
    assert (await watch(edge, "another.Service").read()).status == HealthCheckResponse.SERVICE_UNKNOWN


async def test_a_draining_server_is_not_serving_whatever_the_store_says_and_still_answers(edge, tools) -> None:
    watching = watch(edge)
    await watching.read()
    edge.server.not_serving()
    assert (await watching.read()).status == NOT_SERVING
    await edge.server.probe()
    assert await check(edge) == NOT_SERVING


async def test_a_server_that_starts_without_its_store_is_not_serving(tools) -> None:
    edge = tools.Edge()
    edge.ping.error = OSError()
    await edge.start()
    assert (await watch(edge).read()).status == NOT_SERVING
    await edge.stop()


async def test_a_store_that_hangs_is_a_store_that_does_not_answer(monkeypatch) -> None:
    monkeypatch.setattr(health, "PING_SECONDS", 0.01)
    asked = health.Health(asyncio.Event().wait, [])
    async with asyncio.timeout(10):
        answer = await asked.Check(HealthCheckRequest(), None)
    assert answer.status == NOT_SERVING


async def test_simultaneous_questions_are_one_ping() -> None:
    asking, answered, pings = asyncio.Event(), asyncio.Event(), []

    async def ping() -> None:
        pings.append(None)
        asking.set()
        await answered.wait()

    asked = health.Health(ping, [])
    questions = [asyncio.create_task(asked.Check(HealthCheckRequest(), None)) for _ in range(5)]
    async with asyncio.timeout(10):
        await asking.wait()
        answered.set()
        assert [answer.status for answer in await asyncio.gather(*questions)] == [SERVING] * 5
    assert len(pings) == 1
    assert (await asked.Check(health_pb2.HealthCheckRequest(), None)).status == SERVING
    assert len(pings) == 2
