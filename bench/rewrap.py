"""Rewrapping every value, and a backup, beside a server that answers reads: these on one core, the reader on another.

`python -m bench.rewrap [ACCOUNTS]`; a million take a quarter of an hour with what it needs to make them.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cysqlite import Connection
from synposter_accounts import AsyncAccounts

from bench.deployments import deployment
from bench.fill import account_id, fill
from sandbox.local import Local
from server.accounts.grants import TokenSet
from server.accounts.model import Secret
from server.storage.keyring import KeyRing
from server.storage.token_sets import grant_context, pack
from server.storage.vault import Vault

READS_A_SECOND = 200
LIMIT_SECONDS = 15 * 60
MILLION = 1_000_000
AS_FAST_AS_IT_MAY = "1000000"


def seal_all(local: Local) -> None:
    """Token sets that can be opened, in the place of the blanks."""
    vault = Vault(KeyRing.load(local.folder / "keys.json"))
    packed = pack(
        TokenSet(
            Secret("a" * 90), Secret("r" * 90), datetime.now(UTC) + timedelta(hours=1), ("tweet.read", "users.read")
        )
    )
    connection = Connection(str(local.folder / "accounts.db"))
    rows = connection.execute("SELECT id, profile_id, platform, generation FROM grants").fetchall()
    connection.begin()
    connection.executemany(
        "UPDATE grants SET token_set = ? WHERE id = ?",
        [(vault.seal(packed, grant_context("token_set", *row)), row[0]) for row in rows],
    )
    connection.commit()
    connection.close()


async def latencies(local: Local, accounts: int, until: Callable[[], bool]) -> list[float]:
    """Milliseconds of reads that begin at a steady rate, whatever those before them do."""
    taken: list[float] = []

    async def read(client: AsyncAccounts, number: int) -> None:
        began = time.perf_counter()
        await client.get(account_id(number * 7919 % accounts))
        taken.append((time.perf_counter() - began) * 1000)

    async with AsyncAccounts(local.target, local.api_key) as client, asyncio.TaskGroup() as group:
        began = time.perf_counter()
        number = 0
        while not until():
            group.create_task(read(client, number))
            number += 1
            await asyncio.sleep(max(0.0, began + number / READS_A_SECOND - time.perf_counter()))
    return taken


def for_seconds(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def while_it_runs(local: Local, accounts: int, *words: str) -> tuple[float, list[float]]:
    """Runs a command beside the server, on its core: seconds that it took, and how long reads took meanwhile."""
    began = time.monotonic()
    command = subprocess.Popen(["taskset", "-c", "0", *local.server_command(*words)], stdout=subprocess.DEVNULL)
    taken = asyncio.run(latencies(local, accounts, lambda: command.poll() is not None))
    assert command.wait() == 0
    return time.monotonic() - began, taken


def told(taken: list[float]) -> str:
    return f"median {statistics.median(taken):.1f}, p99 {statistics.quantiles(taken, n=100)[98]:.1f} ms"


def rotate(local: Local) -> None:
    before = set(KeyRing.load(local.folder / "keys.json"))
    local.command("keys", "rotate")
    [key_id] = set(KeyRing.load(local.folder / "keys.json")) - before
    while subprocess.run(local.server_command("keys", "activate", key_id), capture_output=True, check=False).returncode:
        time.sleep(0.5)


def main(accounts: int) -> None:
    with deployment(0) as local:
        fill(local.folder / "accounts.db", accounts)
        seal_all(local)
        local.start_server()
        for thread in Path(f"/proc/{local.pid('server')}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {0})
        os.sched_setaffinity(0, {1})
        alone = asyncio.run(latencies(local, accounts, for_seconds(15)))
        size = (local.folder / "accounts.db").stat().st_size
        copied, while_copied = while_it_runs(local, accounts, "backup", str(local.folder / "backup"))
        rotate(local)
        wrapped, while_wrapped = while_it_runs(local, accounts, "keys", "rewrap", "--rate", AS_FAST_AS_IT_MAY)
    whole = wrapped * MILLION / accounts
    print(f"{accounts:,} accounts, {size / 1e6:,.0f} MB; {READS_A_SECOND} reads a second: {told(alone)}")
    print(f"backup   {copied:7.1f} s; reads meanwhile: {told(while_copied)}")
    print(
        f"rewrap   {wrapped:7.1f} s, a million in {whole / 60:.1f} min (< 15); reads meanwhile: {told(while_wrapped)}"
    )
    sys.exit(whole > LIMIT_SECONDS)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else MILLION)
