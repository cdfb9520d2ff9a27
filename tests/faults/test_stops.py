"""Stops that come at a bad moment: SIGTERM with many refreshes hanging, and a process that dies again and again."""

import asyncio
import os
import signal
import time
from pathlib import Path

import psycopg
import pytest

from server.accounts.model import Status
from tests.faults.processes import Fleet, fleet, until
from tests.postgres import cluster, fresh_database


async def test_sigterm_with_every_refresh_hanging_stores_them_all_and_a_second_one_changes_nothing(
    tmp_path: Path,
) -> None:
    async with fleet(tmp_path) as running:
        await running.seed(200)
        await running.sandbox.fault("token", "hold_after", only="refresh", times=-1)
        running.start()
        await running.until_all_hang()
        hanging = await running.sent()
        pid = running.servers[0].pid("server")
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        await until(lambda: running.lines("draining"))
        stopping = asyncio.create_task(asyncio.to_thread(running.servers[0].kill, "server", signal.SIGTERM))
        await asyncio.sleep(1)
        assert not stopping.done()
        await running.sandbox.release()
        assert await stopping == 0
        assert time.monotonic() - began < 30
        assert set((await running.sends()).values()) == {1} and len(await running.sends()) == hanging
        assert running.states() == {"ready": 200}
        assert running.refreshed() == hanging
        assert await running.live_tokens() == running.held_tokens()


@pytest.mark.long
async def test_sigterm_while_the_standby_of_postgresql_is_away_ends_in_time_and_loses_no_pair(tmp_path: Path) -> None:
    with cluster() as server:
        url = fresh_database(server)
        async with fleet(tmp_path, database_url=url) as running:
            await running.seed(64)
            await running.sandbox.fault("token", "hold_after", only="refresh", times=-1)
            running.start()
            await running.until_all_hang()
            hanging = await running.sent()
            wait_for_standby(url, "nobody")
            began = time.monotonic()
            stopping = asyncio.create_task(asyncio.to_thread(running.servers[0].kill, "server", signal.SIGTERM))
            await until(lambda: running.lines("draining"))
            await running.sandbox.release()
            assert await stopping == 0
            assert time.monotonic() - began < 60, "systemd kills by then"
            wait_for_standby(url, "")
            await running.sandbox.clear_faults()
            running.start()
            await until(lambda: running.refreshed() >= hanging)
            assert await running.live_tokens() == running.held_tokens()
            assert set((await running.sends()).values()) == {1}


def wait_for_standby(url: str, name: str) -> None:
    """Lets commits wait for a standby of this name from now on; for none without a name."""
    with psycopg.connect(url, autocommit=True, options="-c synchronous_commit=local") as beside:
        beside.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        beside.execute("SELECT pg_reload_conf()")


def retried(running: Fleet) -> int:
    """Brings the end of their access tokens forward for those that wait for it; how many are refreshed by now."""
    running.make_due(only="unknown")
    return running.refreshed()


@pytest.mark.parametrize(("kills", "due"), [(3, 600), pytest.param(40, 6_000, marks=pytest.mark.long)])
async def test_a_process_that_dies_every_second_replays_nothing_and_starves_nobody(
    tmp_path: Path, kills: int, due: int
) -> None:
    async with fleet(tmp_path) as running:
        await running.sandbox.settings(replay="grace", grace_seconds=3600)
        await running.seed(due)
        await running.sandbox.fault("token", "hang_after", only="refresh", times=-1, seconds=0.4)
        for _ in range(kills):
            before = await running.sent()
            running.start()
            await running.until_sent(before + 1)
            await asyncio.sleep(0.6)  # some answers are stored by now, others on their way
            running.servers[0].kill("server")
        # Those whose answer died with a process wait for the end of their access token, and none was sent again.
        assert set((await running.sends()).values()) == {1}
        await running.sandbox.clear_faults()
        running.start()
        await until(
            lambda: running.states()["ready"] == running.refreshed() and running.states()["sent"] == 0, 30 + due / 50
        )
        interrupted = running.states()["unknown"]
        assert 0 < interrupted < due
        assert await running.replays() == 0
        await until(lambda: retried(running) == due, patience=due / 20, every=1)
        assert max((await running.sends()).values()) == 2
        assert await running.live_tokens() == running.held_tokens()
        assert running.statuses() == {Status.ACTIVE: due}
