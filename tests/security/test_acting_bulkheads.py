"""A platform that hangs holds up the calls to it, up to a number, and nothing else (row G2)."""

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from synposter.accounts.v1.platform_service_pb2 import CallRequest

from tests.e2e.test_linkedin import connected
from tests.platforms.peer import http
from tests.rpc.conftest import bearer, refusal_of
from tests.security.acting import acting

PLACES, CALLS, REPEATS = 300, 1_000, 200


async def ending(call: Any) -> str:
    try:
        return str((await call).status_code)
    except grpc.aio.AioRpcError as error:
        refusal = refusal_of(error)
        return f"{refusal.reason} {refusal.facts['limit']}"


async def p99_of(call: Callable[[], Awaitable[Any]]) -> float:
    """What 99 of a hundred calls, one after the other, stay below, in seconds."""
    took = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return sorted(took)[REPEATS * 99 // 100]


@pytest.mark.alone
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
        assert await p99_of(lambda: service.whole.accounts.get(service.account.id)) < 0.1
        elsewhere = CallRequest(account_id=other.id, method="GET", path="/v2/userinfo")
        key = bearer(service.whole.local.api_key)
        assert (await service.stub.Call(elsewhere, metadata=key, timeout=5)).status_code == 200
        assert await p99_of(lambda: service.stub.Call(elsewhere, metadata=key, timeout=5)) < 0.1
        assert await p99_of(service.refusal) < 0.1, "what is over is refused at once"
        began = time.monotonic()
        await service.whole.refresh_due()
        assert time.monotonic() - began < 5
        assert [each["refreshes"] for each in await service.whole.sandbox.ledger() if each["refreshes"]] == [1]
        go_on.set()
        assert Counter(await asyncio.gather(*calls)) == {"200": PLACES, "RATE_LIMITED waiting": CALLS - PLACES}
        assert (await service.call()).status_code == 200, "the places are free again"


@pytest.fixture
def two_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCOUNTS_PLATFORMS__TWITTER__CALLS_IN_FLIGHT", "8")
    for name, value in {
        "API_KEYS_SHA256": [hashlib.sha256(b"other-key").hexdigest()],
        "PERMISSIONS": ["act"],
        "PROFILES": ["*"],
        "PLATFORMS": ["twitter"],
        "ROUTES": ["twitter GET /2/users/{id}"],
    }.items():
        monkeypatch.setenv(f"ACCOUNTS_CALLERS__OTHER__{name}", json.dumps(value))


@pytest.mark.usefixtures("two_callers")
async def test_one_caller_of_several_gets_three_quarters_of_the_places_and_leaves_the_rest(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(http(b"{}"))

    async with acting(tmp_path, answer) as service:
        mine = [asyncio.create_task(ending(service.call(timeout=60))) for _ in range(20)]
        async with asyncio.timeout(20):
            while sum(call.done() for call in mine) < 14:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        request = CallRequest(account_id=service.account.id, method="GET", path="/2/users/me")
        theirs = [ending(service.stub.Call(request, metadata=bearer("other-key"), timeout=60)) for _ in range(3)]
        others = [asyncio.create_task(each) for each in theirs]
        async with asyncio.timeout(20):
            while sum(call.done() for call in others) < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        go_on.set()
        assert Counter(await asyncio.gather(*mine)) == {"200": 6, "RATE_LIMITED waiting": 14}
        assert Counter(await asyncio.gather(*others)) == {"200": 2, "RATE_LIMITED waiting": 1}
