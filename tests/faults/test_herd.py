"""A herd: everything is overdue when the server starts, and whoever asks for one account does not stand in line."""

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cysqlite
import pytest
from synposter_accounts import AsyncAccounts

from bench.fill import fill
from server.accounts.grants import TokenSet
from server.accounts.model import Secret
from server.storage.keyring import KeyRing
from server.storage.token_sets import grant_context, pack
from server.storage.transaction import micros
from server.storage.vault import Vault
from tests.faults.processes import Fleet, fleet
from tests.faults.seeded import SCOPES

RATE = 200
OVERDUE = -timedelta(minutes=30)
LIFE = timedelta(hours=1)


async def overdue(herd: Fleet, count: int, at_platform: int) -> None:
    """So many overdue grants; the platform knows those that come first, and the very last.

    The others keep blanks for token sets: their turn does not come while the test looks.
    """
    local = herd.servers[0]
    fill(local.folder / "accounts.db", count)
    tokens = {number: f"sbx-rt-canary-herd-{number}" for number in (*range(at_platform), count - 1)}
    await herd.sandbox.seed_grants(list(tokens.values()), " ".join(SCOPES))
    vault = Vault(KeyRing.load(local.folder / "keys.json"))
    connection = cysqlite.Connection(str(local.folder / "accounts.db"))
    connection.execute("PRAGMA cache_size = -500000")
    connection.begin()
    connection.execute("UPDATE grants SET due_time = ? + rowid", (micros(datetime.now(UTC) + OVERDUE),))
    rows = connection.execute("SELECT id, profile_id, platform, generation FROM grants ORDER BY id").fetchall()
    connection.executemany(
        "UPDATE grants SET token_set = ? WHERE id = ?",
        [(sealed(vault, token, rows[number]), rows[number][0]) for number, token in tokens.items()],
    )
    connection.commit()
    connection.close()


def sealed(vault: Vault, refresh_token: str, grant: tuple[str, str, str, int]) -> bytes:
    token_set = TokenSet(Secret("at-of-" + refresh_token), Secret(refresh_token), datetime.now(UTC) + LIFE, SCOPES)
    return vault.seal(pack(token_set), grant_context("token_set", *grant))


def resident(pid: int) -> float:
    """Megabytes."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


@pytest.mark.alone
@pytest.mark.parametrize(("count", "seconds"), [(5_000, 6.0), pytest.param(1_000_000, 60.0, marks=pytest.mark.long)])
async def test_a_herd_is_worked_off_at_the_rate_with_flat_memory_and_who_asks_goes_first(
    tmp_path: Path, count: int, seconds: float
) -> None:
    async with fleet(tmp_path) as herd:
        await overdue(herd, count, at_platform=min(count - 1, int((seconds + 20) * RATE)))
        [(last,)] = herd.sql("SELECT id FROM accounts ORDER BY id DESC LIMIT 1")
        herd.start()
        local = herd.servers[0]
        async with AsyncAccounts(local.target, local.api_key) as accounts:
            began = time.monotonic()
            assert (await accounts.refresh(last)).refreshed
            assert time.monotonic() - began < 2
        sizes = []
        while time.monotonic() - began < seconds:
            sizes.append(resident(local.pid("server")))
            await asyncio.sleep(0.5)
        requests = await herd.sandbox.requests("token")
        by_second = Counter(int(each["time"]) for each in requests)
        assert max(by_second.values()) <= RATE * 1.25, by_second
        assert sum(by_second.values()) >= RATE * seconds * 0.6, "the rate is used"
        assert max(sizes) < 300 and max(sizes) - sizes[len(sizes) // 2] < 30, sizes
        assert await herd.replays() == 0
