"""Several real servers on one PostgreSQL: each grant is refreshed once, whoever stands still meanwhile."""

from pathlib import Path

import pytest

from server.accounts.model import Status
from tests.faults.processes import LONG, fleet, until
from tests.postgres import fresh_database


@pytest.mark.parametrize(
    ("servers", "due"),
    [(2, 1_000), pytest.param(2, 10_000, marks=pytest.mark.long), pytest.param(4, 10_000, marks=pytest.mark.long)],
)
async def test_what_is_due_at_once_is_sent_once_by_whichever_process(
    tmp_path: Path, postgres: str, servers: int, due: int
) -> None:
    async with fleet(tmp_path, servers=servers, database_url=fresh_database(postgres)) as running:
        running.start()
        await running.seed(due, due_in=LONG / 2)
        running.make_due(in_seconds=1)
        await until(lambda: running.refreshed() == due, patience=20 + due / 50)
        sends = await running.sends()
        assert (len(sends), set(sends.values())) == (due, {1})
        assert await running.replays() == 0
        assert await running.live_tokens() == running.held_tokens()
        assert running.statuses() == {Status.ACTIVE: due}
        shares = [len(running.lines("refresh", number)) for number in range(servers)]
        assert sum(shares) == due and min(shares) > 0
