"""Reads beside a bare server, on either database, and over a thousand times as many accounts."""

from __future__ import annotations

import asyncio
import statistics
import time

from bench.deployments import deployment, durable_postgres, process, resident
from bench.report import Row, at_least, at_most, per_second
from bench.target import get_account, list_accounts, noop, side_by_side
from sandbox.local import Local
from tests.postgres import NoPostgres

ACCOUNTS = 100_000


def reads(seconds: float) -> list[Row]:
    with deployment(ACCOUNTS) as local, process("bench.noop") as port:
        local.start_server()
        get = get_account(local, ACCOUNTS)
        gets, bares = side_by_side(get, noop(port), seconds)
        lists, gets_again = side_by_side(list_accounts(local, ACCOUNTS), get, seconds)
    return [
        per_second("bare no-op, calls/s", bares),
        per_second("GetAccount over 100,000, calls/s", gets),
        at_least("GetAccount / bare no-op", [a / b for a, b in zip(gets, bares, strict=True)], 0.45),
        at_most("ListAccounts of 50, in GetAccounts", [b / a for a, b in zip(lists, gets_again, strict=True)], 6),
        *reads_on_postgres(seconds),
    ]


def reads_on_postgres(seconds: float) -> list[Row]:
    name = "GetAccount / no-op on PostgreSQL"
    try:
        with durable_postgres() as url, deployment(ACCOUNTS, url) as local, process("bench.noop") as port:
            local.start_server()
            gets, bares = side_by_side(get_account(local, ACCOUNTS), noop(port), seconds)
    except NoPostgres as missing:
        return [Row(name, str(missing))]
    return [at_least(name, [a / b for a, b in zip(gets, bares, strict=True)], 0.15)]


def size(seconds: float) -> list[Row]:
    with deployment(1_000) as small, deployment(1_000_000) as large:
        small.start_server(), large.start_server()
        large_rates, small_rates = side_by_side(get_account(large, 1_000_000), get_account(small, 1_000), seconds)
        ratios = [a / b for a, b in zip(large_rates, small_rates, strict=True)]
        memory = resident(small.pid("server")), resident(large.pid("server"))
        large.kill("server")
        tick = asyncio.run(idle_tick(large))
    return [
        at_least("GetAccount, 1,000,000 accounts / 1,000", ratios, 0.9),
        Row("tick that finds nothing due in 1,000,000", f"{tick * 1000:.2f} ms", "< 2 ms", tick < 0.002),
        Row("memory under load, 1,000 and 1,000,000", f"{memory[0]:.0f} and {memory[1]:.0f} MB"),
    ]


async def idle_tick(local: Local) -> float:
    """Seconds that one round of all jobs takes; the median of many."""
    from server.app import App  # noqa: PLC0415 (imports the whole server)
    from server.parts import load_settings  # noqa: PLC0415 (imports the whole server)

    app = App(load_settings(local.config_file), run_jobs=False)
    await app.start()
    times = []
    for _ in range(200):
        began = time.perf_counter()
        for name in app.platforms:
            await app.refresher.work_off(name)
            await app.revoker.work_off(name)
            await app.identities.work_off(name)
        times.append(time.perf_counter() - began)
    await app.stop()
    return statistics.median(times)
