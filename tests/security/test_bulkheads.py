"""A platform that hangs holds up those who wait for it, and nobody else (row G2)."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from synposter_accounts import AccountsError, AsyncAccounts

from server.accounts.gate import MOST_OF_ONE
from tests.e2e.conftest import PROFILE, whole_service
from tests.faults.seeded import seed
from tests.postgres import fresh_database

REFRESHES, CONNECTS, REPEATS, READS = 350, 15, 10, 300
WAITERS = CONNECTS * REPEATS + REFRESHES


async def ending(call: Awaitable[Any]) -> str:
    """How a call ends: by the reason of its refusal, or well."""
    try:
        await call
    except AccountsError as error:
        return error.reason or type(error).__name__
    return "well"


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_hundreds_of_calls_that_wait_for_a_platform_leave_reads_alone(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    url = fresh_database(request.getfixturevalue("postgres")) if kind == "postgres" else None
    async with whole_service(tmp_path / "deployment", url) as whole:
        await seed(whole.sandbox, whole.app.store, REFRESHES, due_in=timedelta(), life=timedelta(hours=1))
        accounts = [account async for account in whole.accounts.list()]
        whole.clock.offset += timedelta(hours=2)
        backs = [await whole.come_back() for _ in range(CONNECTS)]
        await whole.sandbox.fault("token", "hold_before", times=-1)
        async with AsyncAccounts(whole.local.target, whole.local.api_key, timeout=60) as waiting:
            connects = [
                asyncio.create_task(ending(waiting.complete_connect(PROFILE, completion_code=back["completion_code"])))
                for back in backs
                for _ in range(REPEATS)
            ]
            await whole.sandbox.until_held()
            refreshes = [asyncio.create_task(ending(waiting.refresh(account.id))) for account in accounts]
            async with asyncio.timeout(10):
                while sum(task.done() for task in refreshes + connects) < WAITERS - MOST_OF_ONE:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            took = []
            for number in range(READS):
                began = time.perf_counter()
                await whole.accounts.get(accounts[number % REFRESHES].id)
                took.append(time.perf_counter() - began)
            refused = [task.result() for task in refreshes + connects if task.done()]
            assert Counter(refused) == {"RATE_LIMITED": WAITERS - MOST_OF_ONE}, "the others wait"
            assert sorted(took)[READS * 99 // 100] < 0.1
            await whole.sandbox.clear_faults()
            assert Counter(await asyncio.gather(*connects)) == {"well": CONNECTS * REPEATS}
            assert Counter(await asyncio.gather(*refreshes)) == {
                "well": MOST_OF_ONE - len(connects), "RATE_LIMITED": WAITERS - MOST_OF_ONE,
            }  # fmt: skip
