"""What is refused is let go of at once, not when the garbage collector comes by: a request holds up to 8 MiB."""

import gc
import tracemalloc
from collections.abc import Iterator

import grpc.aio
import pytest
from synposter.accounts.v1.platform_service_pb2 import CallRequest

from tests.e2e.conftest import Whole
from tests.rpc.conftest import bearer

CALLS, BODY = 8, 256 * 1024


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


async def grown(service: Whole, request: CallRequest, code: grpc.StatusCode, fault: str = "") -> int:
    """Bytes that are held once some such calls are over, but for what the first of them made."""
    held = 0
    async with grpc.aio.insecure_channel(service.local.target) as channel:
        call = channel.unary_unary("/synposter.accounts.v1.PlatformService/Call")
        for _ in range(CALLS + 1):
            if fault:
                await service.sandbox.fault("post", fault)
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await call(request.SerializeToString(), metadata=bearer(service.local.api_key))
            assert told.value.code() is code
            del told
            held = held or tracemalloc.get_traced_memory()[0]
    return tracemalloc.get_traced_memory()[0] - held


async def test_the_body_of_a_call_that_is_refused_is_held_no_longer(service: Whole) -> None:
    account = await service.connect()
    request = CallRequest(
        account_id=account.id, method="POST", path="/no//path", content_type="text/plain", body=b"x" * BODY
    )
    assert await grown(service, request, grpc.StatusCode.INVALID_ARGUMENT) < BODY


async def test_the_body_of_a_call_of_unknown_outcome_is_held_no_longer(service: Whole) -> None:
    account = await service.connect()
    request = CallRequest(
        account_id=account.id, method="POST", path="/2/tweets", content_type="application/json", body=b"x" * BODY
    )
    assert await grown(service, request, grpc.StatusCode.ABORTED, "drop_after") < BODY
