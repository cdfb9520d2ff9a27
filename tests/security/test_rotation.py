"""Row D4 in its long form (`make faults`): keys rotated under load, and the rewrap killed a hundred times."""

import asyncio
import contextlib
import random
import subprocess
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from synposter_accounts import AsyncAccounts

from server.storage.keyring import KeyRing
from tests.faults.processes import LONG, Fleet, fleet
from tests.postgres import fresh_database

KILLS = 100
GRANTS = 2000
RATE = 300
MOVED = 100
"""Refreshes alone move some tens meanwhile; what is more was the rewrap's."""
EVERY = 0.5
"""Seconds between two lots of ten grants that become due: 20 refreshes a second."""


class Load:
    """Refreshes at 20 a second, and reads as fast as one client can."""

    def __init__(self, running: Fleet) -> None:
        self._running = running
        self.reads = 0

    async def refresh(self) -> None:
        oldest = "SELECT id FROM grants WHERE state = 'ready' ORDER BY COALESCE(last_refresh_time, 0) LIMIT 10"
        while True:
            self._running.sql(f"UPDATE grants SET due_time = 1 WHERE id IN ({oldest})")
            await asyncio.sleep(EVERY)

    async def read(self) -> None:
        ids = [row[0] for row in self._running.sql("SELECT id FROM accounts LIMIT 100")]
        local = self._running.servers[-1]
        async with AsyncAccounts(local.target, local.api_key) as accounts:
            while True:
                found = await asyncio.gather(*[accounts.get(account_id) for account_id in ids])
                assert len(found) == len(ids)
                self.reads += len(found)
                await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def on(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work()) for work in (self.refresh, self.read)]
        try:
            yield
            for task in tasks:
                assert not task.done(), task.exception()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def keys(running: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    command = running.servers[0].server_command("keys", *words)
    return await asyncio.to_thread(
        lambda: subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    )


async def until_taken(running: Fleet, *words: str) -> None:
    """Runs a command until it is not refused any more: others take a few seconds to learn of a new file."""
    deadline = time.monotonic() + 90
    while (done := await keys(running, *words)).returncode:
        assert "is not known to" in done.stderr or "still used by" in done.stderr, done.stderr
        assert time.monotonic() < deadline, done.stderr
        await asyncio.sleep(0.5)


def distribute(running: Fleet) -> None:
    """Brings the key file of the first machine to the others."""
    for local in running.servers[1:]:
        fresh = local.folder / "keys.json.coming"
        fresh.write_bytes((running.servers[0].folder / "keys.json").read_bytes())
        fresh.chmod(0o600)
        fresh.rename(local.folder / "keys.json")


def ring(running: Fleet) -> KeyRing:
    return KeyRing.load(running.servers[0].folder / "keys.json")


async def rotate(running: Fleet) -> None:
    before = set(ring(running))
    assert (await keys(running, "rotate")).returncode == 0
    [key_id] = set(ring(running)) - before
    distribute(running)
    await until_taken(running, "activate", key_id)
    distribute(running)


def wrapped_by(running: Fleet) -> Counter[str]:
    """How many token sets each key wraps."""
    heads = running.sql("SELECT substr(token_set, 1, 42) FROM grants")
    return Counter(bytes(head)[2 : 2 + bytes(head)[1]].decode() for [head] in heads)


async def until_midway(running: Fleet, rewrap: asyncio.subprocess.Process, active: str, before: int) -> None:
    """Returns when a rewrap has moved some, or has ended."""
    async with asyncio.timeout(60):
        while rewrap.returncode is None and wrapped_by(running)[active] - before <= MOVED:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.long
@pytest.mark.parametrize("servers", [1, 2], ids=["one on SQLite", "two on PostgreSQL"])
async def test_d4_a_rewrap_that_is_killed_a_hundred_times_under_load_loses_nothing(
    tmp_path: Path, servers: int, request: pytest.FixtureRequest
) -> None:
    url = fresh_database(request.getfixturevalue("postgres")) if servers > 1 else None
    chance = random.Random(4)
    kills = midway = rotations = 0
    async with fleet(tmp_path, servers=servers, database_url=url) as running:
        await running.seed(GRANTS, due_in=LONG)
        running.start()
        load = Load(running)
        began = time.monotonic()
        async with load.on():
            while kills < KILLS:
                active = ring(running).active.id
                before = wrapped_by(running)[active]
                if before > GRANTS * 0.9:
                    await rotate(running)
                    rotations += 1
                    continue
                command = running.servers[0].server_command("keys", "rewrap", "--rate", str(RATE))
                rewrap = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=PIPE)
                if kills % 2:  # the others are found wherever they are: at their start, too
                    await until_midway(running, rewrap, active, before)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(rewrap.wait(), chance.uniform(0.2, 3.0))
                if rewrap.returncode is None:
                    rewrap.kill()
                    kills += 1
                _, errors = await rewrap.communicate()
                assert rewrap.returncode in (0, -9), errors
                midway += rewrap.returncode != 0 and wrapped_by(running)[active] - before > MOVED
            seconds = time.monotonic() - began
            done = await keys(running, "rewrap", "--rate", "1000")
            assert done.returncode == 0, done.stderr
            for key_id in sorted(set(ring(running)) - {ring(running).active.id}):
                await until_taken(running, "retire", key_id)
                distribute(running)
        assert set(wrapped_by(running)) == set(ring(running)) == {ring(running).active.id}
        assert await running.replays() == 0
        await settled(running)
        assert await running.live_tokens() == running.held_tokens()
        assert running.states() == {"ready": GRANTS}
        for log in running.logs:
            assert "does not open" not in log.read_text() and "is not taken up" not in log.read_text()
        refreshes = await running.sent()
    told = f"{kills} kills, {midway} midway, {rotations} rotations in {seconds:.0f} s, {refreshes} refreshes"
    print(f"\n{servers} server(s): {told}, {load.reads / seconds:.0f} reads/s")  # noqa: T201 (a measurement)
    assert midway > KILLS / 3


async def settled(running: Fleet) -> None:
    """Returns when no refresh is under way."""
    deadline = time.monotonic() + 30
    while set(running.states()) != {"ready"}:
        assert time.monotonic() < deadline, running.states()
        await asyncio.sleep(0.2)
