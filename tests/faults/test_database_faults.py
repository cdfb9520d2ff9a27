"""A database that is locked, drops its connections or holds a damaged row, while refreshes go on over it."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cysqlite import connect

from server.accounts.errors import StoreUnavailable
from server.accounts.grants import Commit, Refreshed
from server.accounts.model import Status
from server.parts import load_settings
from server.storage.schema import GrantRow
from tests.e2e.conftest import whole_service
from tests.faults.processes import LONG, Fleet, fleet, until
from tests.faults.seeded import seed
from tests.postgres import fresh_database


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """This process holds the SQLite file, as a backup tool or an operator's shell might."""
    with contextlib.closing(connect(str(database))) as connection:
        connection.execute("PRAGMA busy_timeout = 5000")
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


async def nothing_was_lost(running: Fleet, due: int) -> None:
    """Each grant was refreshed by one request, and the store holds what is live at the platform."""
    assert set((await running.sends()).values()) == {1}
    assert await running.replays() == 0
    assert await running.live_tokens() == running.held_tokens()
    assert running.statuses() == {Status.ACTIVE: due}


async def test_answers_that_come_while_the_database_is_locked_are_all_kept(tmp_path: Path) -> None:
    due = 100
    async with fleet(tmp_path) as running:
        await running.seed(due)
        await running.sandbox.fault("token", "hold_after", only="refresh", times=-1)
        running.start()
        await running.until_all_hang()
        hanging = await running.sent()
        with locked(running.database):
            await running.sandbox.clear_faults()
            journal = load_settings(running.servers[0].config_file).journal_folder
            await until(lambda: any("." not in entry.name for entry in journal.iterdir()))
            assert await running.sent() == hanging
        await until(lambda: running.refreshed() == due)
        # The database may take a pair a moment before that: a write that was given up is carried out.
        await until(lambda: running.lines("an answer came in from the journal"))
        await nothing_was_lost(running, due)


@pytest.mark.parametrize(("due", "seconds"), [(300, 6), pytest.param(6_000, 60, marks=pytest.mark.long)])
async def test_connections_that_are_ended_again_and_again_cost_no_grant(
    tmp_path: Path, postgres: str, due: int, seconds: int
) -> None:
    # A claim whose commit went through while its connection broke comes up again when its lease ends, and as the access
    # token ends soon it is tried at once: that is no replay, as nothing was sent.
    async with fleet(tmp_path, database_url=fresh_database(postgres), lease="6s") as running:
        await running.seed(due, life=timedelta(minutes=5))
        await running.sandbox.fault("token", "hang_after", only="refresh", times=-1, seconds=0.5)
        running.start()
        ended, deadline = 0, time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended += terminate_backends(running)
            await asyncio.sleep(0.3)
        await until(lambda: running.refreshed() == due, patience=60)
        assert ended >= 2 * seconds
        await nothing_was_lost(running, due)


def terminate_backends(running: Fleet) -> int:
    """Ends every connection of the servers; how many."""
    rows = running.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'accounts'"
    )
    return len(rows)


@pytest.mark.parametrize("due", [300, pytest.param(10_000, marks=pytest.mark.long)])
async def test_a_damaged_row_is_left_as_it_is_and_holds_up_nobody(tmp_path: Path, due: int) -> None:
    async with fleet(tmp_path) as running:
        await running.seed(due)
        [(poisoned, sealed)] = running.sql("SELECT id, token_set FROM grants ORDER BY due_time, id LIMIT 1")
        damaged = bytes(sealed[:-1]) + bytes([sealed[-1] ^ 1])
        running.sql(f"UPDATE grants SET token_set = x'{damaged.hex()}' WHERE id = '{poisoned}'")
        running.start()
        await until(lambda: running.refreshed() == due - 1, patience=20 + due / 50)
        await asyncio.sleep(3)  # three ticks of the calendar, at which it would come up again
        assert len(running.lines("a sealed token set does not open")) == 1
        assert len(running.lines("refresh")) == due - 1
        [(kept, state, sends)] = running.sql(f"SELECT token_set, state, sends FROM grants WHERE id = '{poisoned}'")
        assert (bytes(kept), state, sends) == (damaged, "ready", 0)
        assert set((await running.sends()).values()) == {1}
        assert running.statuses() == {Status.ACTIVE: due}


async def test_a_pair_in_the_journal_is_stored_before_its_grant_can_come_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with whole_service(tmp_path / "deployment") as whole:
        store, lease = whole.app.store, whole.app.settings.refresh.lease
        await seed(whole.sandbox, store, 1, due_in=-timedelta(minutes=1), life=timedelta(minutes=5))
        [(first,)] = GrantRow.select(GrantRow.id).tuples().execute(whole.app.engine.database)
        # These keep the refresher going, before the lease of the first has ended and after.
        for due_in in (timedelta(), lease + timedelta(seconds=5)):
            await seed(whole.sandbox, store, 100, due_in=due_in, life=LONG)
        commit, refused = store.commit_refresh, []

        async def refuse_the_first(refreshed: Refreshed) -> Commit:
            if refused or refreshed.grant_id != first:
                return await commit(refreshed)
            refused.append(first)
            whole.clock.offset += lease + timedelta(seconds=10)
            raise StoreUnavailable("as told")

        monkeypatch.setattr(store, "commit_refresh", refuse_the_first)
        await whole.app.refresher.run_once()
        await whole.app.refresher.run_once()
        assert refused
        assert {each["replays"] for each in await whole.sandbox.ledger()} == {0}
        assert whole.app.journal.depth == 0
