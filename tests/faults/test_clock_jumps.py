"""A wall clock that is set, by a day or by a year, makes nothing due that is not."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from synposter_accounts import AccountStatus

from server.storage.clock import SteadyClock
from tests.e2e.conftest import whole_service
from tests.faults.seeded import seed

MINUTE, DAY = 60.0, 86400.0


@pytest.mark.parametrize("jump", [DAY, 365 * DAY, -DAY, 5 * MINUTE, -5 * MINUTE])
async def test_a_wall_clock_that_is_set_starts_no_mass_refresh_and_expires_nobody(tmp_path: Path, jump: float) -> None:
    async with whole_service(tmp_path / "deployment") as whole:
        clock = whole.clock
        assert isinstance(clock, SteadyClock)
        await seed(whole.sandbox, whole.app.store, 50, due_in=timedelta(hours=1), life=timedelta(hours=2))
        clock._wall = lambda: time.time() + jump
        for _ in range(5):
            assert await whole.app.refresher.run_once() == 0
            clock._steady = lambda steady=clock._steady: steady() + 60  # type: ignore[misc]
        assert await whole.sandbox.requests("token") == []
        assert {account.status async for account in whole.accounts.list()} == {AccountStatus.ACTIVE}
        clock._steady = lambda steady=clock._steady: steady() + 4500  # type: ignore[misc]
        assert await whole.app.refresher.run_once() == 50, (
            "what is due by the time that passed is refreshed all the same"
        )
