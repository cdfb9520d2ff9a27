"""A platform that hangs holds up the calls to it, up to a number, and nothing else (row G2)."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from synposter.accounts.v1.platform_service_pb2 import CallRequest

from tests.e2e.test_linkedin import connected
from tests.platforms.peer import http
from tests.rpc.conftest import bearer, refusal_of
from tests.security.acting import Acting, acting

PLACES, CALLS, READS = 300, 1_000, 200


async def ending(call: Any) -> str:
    try:
        return str((await call).status_code)
    except grpc.aio.AioRpcError as error:
        refusal = refusal_of(error)
        return f"{refusal.reason} {refusal.facts['limit']}"


async def p99_of_reads(service: Acting) -> float:
    took = []
    for _ in range(READS):
        began = time.perf_counter()
        await service.whole.accounts.get(service.account.id)
        took.append(time.perf_counter() - began)
    return sorted(took)[READS * 99 // 100]


async def test_a_thousand_calls_to_a_platform_that_hangs_leave_reads_refreshes_and_other_platforms_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCOUNTS_PLATFORMS__TWITTER__CALLS_IN_FLIGHT", str(PLACES))
    go_on = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(http(b"{}"))

    async with acting(tmp_path, answer) as service:
        other = await connected(service.whole)
        calls = [asyncio.create_task(ending(service.call(timeout=60))) for _ in range(CALLS)]
        async with asyncio.timeout(20):
            while sum(call.done() for call in calls) < CALLS - PLACES or len(service.peer.received) < PLACES:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert Counter(call.result() for call in calls if call.done()) == {"RATE_LIMITED waiting": CALLS - PLACES}
        assert len(service.peer.received) == PLACES
        assert await p99_of_reads(service) < 0.1
        elsewhere = CallRequest(account_id=other.id, method="GET", path="/v2/userinfo")
        key = bearer(service.whole.local.api_key)
        began = time.monotonic()
        assert (await service.stub.Call(elsewhere, metadata=key, timeout=5)).status_code == 200
        await service.whole.refresh_due()
        assert time.monotonic() - began < 5
        assert [each["refreshes"] for each in await service.whole.sandbox.ledger() if each["refreshes"]] == [1]
        go_on.set()
        assert Counter(await asyncio.gather(*calls)) == {"200": PLACES, "RATE_LIMITED waiting": CALLS - PLACES}
        assert (await service.call()).status_code == 200, "the places are free again"
