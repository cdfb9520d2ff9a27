"""A herd: everything is overdue when the server starts, and whoever asks for one account does not stand in line."""

import asyncio
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from synposter_accounts import AsyncAccounts

from server.parts import load_settings, new_id, open_engine
from server.storage.keyring import KeyRing
from server.storage.store import Store
from server.storage.vault import Vault
from tests.faults.processes import Fleet, fleet
from tests.faults.seeded import SCOPES, add_grants

RATE = 200
OVERDUE = -timedelta(minutes=30)
LIFE = timedelta(hours=1)
BATCH = 1_000


async def overdue(herd: Fleet, count: int, at_platform: int) -> None:
    """So many overdue grants; the platform knows those that come first, and the very last."""
    engine = open_engine(load_settings(herd.servers[0].config_file))
    store = Store(engine, Vault(KeyRing.load(herd.servers[0].folder / "keys.json")), new_id)
    tokens = [f"sbx-rt-canary-herd-{number}" for number in range(count)]
    await herd.sandbox.seed_grants([*tokens[:at_platform], tokens[-1]], " ".join(SCOPES))
    for start in range(0, count, BATCH):
        batch = tokens[start : start + BATCH]
        due_in = OVERDUE + timedelta(seconds=start / count)
        await store._write(lambda tx, batch=batch, due_in=due_in: add_grants(tx, batch, due_in, LIFE))  # type: ignore[misc]
    engine.close()


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
