"""What is too large is refused before anything is done with it (row G1)."""

from collections.abc import AsyncIterator

import grpc.aio
import pytest
from synposter.accounts.v1 import account_service_pb2 as pb

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
