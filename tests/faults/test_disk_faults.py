"""A disk that is full or broken: nothing is asked of a platform that could not be kept, and nothing is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from synposter_accounts import AsyncAccounts

from server.accounts.grants import Refreshed, TokenSet
from server.accounts.model import Secret, Status
from server.app import IN_FLIGHT_CAP
from server.platforms.catalog import PLATFORMS
from server.storage.journal import FileJournal
from server.storage.vault import Vault
from tests.faults.broken_disks import failing_calls, filled, small_disk
from tests.faults.processes import LONG, Fleet, fleet, until

IN_FLIGHT, WAITING = 8, 40
Break = Callable[[Fleet], contextlib.AbstractContextManager[None]]


def full(running: Fleet) -> contextlib.AbstractContextManager[None]:
    return filled(running.database.parent)


def refusing_writes(running: Fleet) -> contextlib.AbstractContextManager[None]:
    return failing_calls(running.servers[0].pid("server"), "pwrite64:error=ENOSPC")


def refusing_syncs(running: Fleet) -> contextlib.AbstractContextManager[None]:
    return failing_calls(running.servers[0].pid("server"), "fsync:error=EIO", "fdatasync:error=EIO")


broken = pytest.mark.parametrize(
    "broken",
    [
        full,
        pytest.param(refusing_writes, marks=pytest.mark.long),
        pytest.param(refusing_syncs, marks=pytest.mark.long),
    ],
)
"""How the disk is broken while the test says so."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


@contextlib.asynccontextmanager
async def some_in_flight(folder: Path, disk: Path) -> AsyncIterator[Fleet]:
    """A server whose database and journal are on a small disk; the platform holds the answers of eight refreshes."""
    async with fleet(folder, database_url=f"sqlite:///{disk}/accounts.db") as running:
        await running.seed(IN_FLIGHT)
        await running.seed(WAITING, due_in=LONG / 2)
        await running.sandbox.fault("token", "hold_after", only="refresh", times=IN_FLIGHT)
        running.start()
        await running.sandbox.until_held(IN_FLIGHT)
        yield running


@broken
async def test_nothing_is_sent_while_nothing_can_be_stored_and_nothing_is_lost(
    tmp_path: Path, disk: Path, broken: Break
) -> None:
    async with some_in_flight(tmp_path, disk) as running:
        running.make_due(in_seconds=1)
        with broken(running):
            await running.sandbox.release()
            await asyncio.sleep(3)
            assert sum((await running.sends()).values()) == IN_FLIGHT
        await until(lambda: running.refreshed() == IN_FLIGHT + WAITING)
        assert set((await running.sends()).values()) == {1}
        assert await running.replays() == 0
        assert await running.live_tokens() == running.held_tokens()
        assert running.statuses() == {Status.ACTIVE: IN_FLIGHT + WAITING}


@broken
async def test_reads_go_on_and_health_says_not_serving_until_it_can_be_written_again(
    tmp_path: Path, disk: Path, broken: Break
) -> None:
    async with some_in_flight(tmp_path, disk) as running:
        assert await running.serving()
        with broken(running):
            await running.sandbox.release()
            await until_serving(running, False)
            server = running.servers[0]
            async with AsyncAccounts(server.target, server.api_key) as accounts:
                [profile_id] = running.sql("SELECT profile_id FROM accounts LIMIT 1")[0]
                [account] = [account async for account in accounts.list(profile_id)]
            assert account.handle == "ada"
        await until_serving(running, True)


async def test_on_a_full_disk_the_journal_has_room_for_all_that_can_be_in_flight(
    disk: Path, vault: Vault, new_id: Callable[[], str]
) -> None:
    journal = FileJournal(disk / "journal", vault, new_id)
    await journal.make_ready()
    in_flight = IN_FLIGHT_CAP * len(PLATFORMS)
    end = datetime(2027, 1, 1, tzinfo=UTC)
    with filled(disk):
        for number in range(in_flight):
            brought = TokenSet(Secret("a" * 1000), Secret("r" * 1000), end, ("tweet.read",))
            await journal.keep(Refreshed(str(number), "profile", "twitter", 1, ("tweet.read",), brought, end))
    assert journal.depth == in_flight and not journal.ready


async def until_serving(running: Fleet, expected: bool) -> None:
    for _ in range(100):
        if await running.serving() is expected:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"health does not say {'SERVING' if expected else 'NOT_SERVING'} within ten seconds")
