"""What is too large is refused before anything is done with it (row G1)."""

from collections.abc import AsyncIterator

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1.platform_service_pb2 import CallRequest, ListUsageRequest

from server.accounts.calls import LARGEST_BODY
from tests.rpc.conftest import ID, Edge, bearer

GET = pb.GetAccountRequest(id=ID)


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = Edge()
    await edge.start()
    yield edge
    await edge.stop()


@pytest.mark.parametrize("kilobytes", [17, 64, 1024])
async def test_metadata_beyond_16_kib_is_refused_and_the_next_call_is_answered(edge: Edge, kilobytes: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await edge.stub.GetAccount(GET, metadata=(*bearer("full-key"), ("x-junk", "x" * 1024 * kilobytes)), timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert edge.use_cases.calls == []
    await edge.call("GetAccount", GET)


async def test_a_request_of_257_kib_is_refused_and_one_of_a_little_less_is_read(edge: Edge) -> None:
    for kilobytes, code in ((257, grpc.StatusCode.RESOURCE_EXHAUSTED), (255, grpc.StatusCode.INVALID_ARGUMENT)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await edge.call("GetAccount", pb.GetAccountRequest(id="1" * 1024 * kilobytes))
        assert caught.value.code() is code
    assert edge.use_cases.calls == []


async def test_the_body_of_a_call_may_have_8_mib_and_no_other_request_may(edge: Edge) -> None:
    call = CallRequest(account_id=ID, method="POST", path="/2/tweets", content_type="a/b", body=b"x" * LARGEST_BODY)
    await edge.call("Call", call)
    for method, request in (
        ("Call", CallRequest(account_id=ID, body=b"x" * (LARGEST_BODY + 256 * 1024))),
        ("ListUsage", ListUsageRequest(account_id="1" * 1024 * 300)),
        ("BeginConnect", pb.BeginConnectRequest(profile_id="1" * 1024 * 1024)),
        ("WatchAccounts", pb.WatchAccountsRequest(profile_id="1" * 1024 * 300)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await edge.call(method, request)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, method
    assert len(edge.use_cases.calls) == 1


async def test_whoever_may_ask_for_the_health_or_by_reflection_sends_no_large_requests_either(edge: Edge) -> None:
    health = health_pb2_grpc.HealthStub(edge.channel)
    asked = [
        health.Check(HealthCheckRequest(service="x" * 1024 * 300)),
        health.Watch(HealthCheckRequest(service="x" * 1024 * 300)).read(),
        ServerReflectionStub(edge.channel)
        .ServerReflectionInfo(
            iter([ServerReflectionRequest(list_services="x" * 1024 * 300)]), metadata=bearer("full-key")
        )
        .read(),
    ]
    for call in asked:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_request_that_is_too_large_is_audited(edge: Edge) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await edge.call("GetAccount", pb.GetAccountRequest(id="1" * 1024 * 300))
    await edge.refusals.work_off()
    [refused] = edge.use_cases.refusals
    assert (refused.caller, refused.method, refused.reason) == ("full", "GetAccount", "INVALID_FIELD")
    assert refused.facts == {"field": "request"} and refused.account_id is None
