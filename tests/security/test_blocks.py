"""A blocked caller is refused at every method it could call, and nobody else is (row E7)."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from server.accounts.model import Block
from tests.rpc.conftest import Edge, bearer, refusal_of
from tests.rpc.test_guard import REQUESTS


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = Edge()
    await edge.start()
    yield edge
    await edge.stop()


async def say(edge: Edge, caller: str, reason: str) -> None:
    edge.use_cases.blocked = (Block(caller, reason, "ada", datetime.now(UTC)),)
    await edge.blocks.follow()


@pytest.mark.parametrize("method", REQUESTS)
async def test_a_blocked_caller_may_do_nothing_and_others_go_on(edge: Edge, method: str) -> None:
    await say(edge, "full", "stolen at noon")
    refusal = await edge.refusal(method, REQUESTS[method])
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_PERMITTED")
    assert refusal.facts == {"blocked": "full"} and "noon" not in refusal.raw + refusal.text
    assert edge.use_cases.calls == []
    await edge.call(method, REQUESTS[method], key="other-key")
    await say(edge, "full", "")
    await edge.call(method, REQUESTS[method])


async def test_reflection_is_closed_to_a_blocked_caller_and_health_is_open(edge: Edge) -> None:
    await say(edge, "full", "stolen")
    stream = ServerReflectionStub(edge.channel).ServerReflectionInfo(
        iter([ServerReflectionRequest(list_services="")]), metadata=bearer("full-key")
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert refusal_of(caught.value).reason == "CALLER_NOT_PERMITTED"
    answer = await health_pb2_grpc.HealthStub(edge.channel).Check(HealthCheckRequest(), metadata=bearer("full-key"))
    assert answer.status == HealthCheckResponse.SERVING
