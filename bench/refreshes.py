"""Refreshes: as fast as they go, beside a bare loop; and as many as a million X accounts need, beside reads."""

from __future__ import annotations

import re
import statistics
import time

import cysqlite

from bench.deployments import configure, cpu_seconds, deployment, durable_postgres, printed, process
from bench.report import Row, at_least, at_most, per_second, told
from bench.target import TURNS, get_account
from sandbox.local import Local
from server.platforms.twitter import TWITTER
from tests.postgres import NoPostgres

ACCOUNTS = 100_000
STEADY_RATE = 174
"""A million access tokens of two hours, each refreshed at 80 % of its life."""
STEADY_SECONDS = 4
REFRESH_TURNS = 3
QUICK = 6_500
"""Refreshes a second of the bare loop on the machine for which the share of a core was set."""


def refreshes(_: float) -> list[Row]:
    rates, ratios = beside_bare()
    return [
        per_second("refreshes/s on SQLite", rates),
        at_least("refreshes / bare loop", ratios, 0.35),
        *refreshes_on_postgres(),
    ]


def refreshes_on_postgres() -> list[Row]:
    name = "refreshes / bare loop on PostgreSQL"
    try:
        with durable_postgres() as url:
            _, ratios = beside_bare(url)
    except NoPostgres as missing:
        return [Row(name, str(missing))]
    return [at_least(name, ratios, 0.2)]


def beside_bare(postgres: str | None = None) -> tuple[list[float], list[float]]:
    """Refreshes a second, and their ratios to those of a bare loop, measured in turns."""
    rates, ratios = [], []
    with process("bench.token_endpoint") as port, deployment(0, postgres) as local:
        ask_at(local, port)
        for _ in range(REFRESH_TURNS):
            bare = float(printed("bench.refresh_rate", "bare", str(port)))
            rates.append(float(printed("bench.refresh_rate", "ours", str(local.config_file))))
            ratios.append(rates[-1] / bare)
    return rates, ratios


def steady(_: float) -> list[Row]:
    """What reads lose while a million accounts are kept fresh, and what that takes of a core."""
    with process("bench.token_endpoint") as port, deployment(ACCOUNTS) as local:
        ask_at(local, port)
        # At the rate that is shipped: it spreads over a second what comes up together when the scheduler looks.
        configure(local, "refresh_rate = 100000", f"refresh_rate = {TWITTER.refresh_rate:.0f}")
        printed("bench.refresh_rate", "connect", str(local.config_file), str(STEADY_RATE * STEADY_SECONDS))
        local.start_server()
        get = get_account(local, ACCOUNTS)
        get.run(1)
        rates, latencies, cores, bares = [], [], [], []
        for _turn in range(TURNS):
            quiet = get.run(STEADY_SECONDS)
            began = make_due(local)
            busy = get.run(STEADY_SECONDS)
            assert_refreshed(local, began)
            rates.append(busy.rate / quiet.rate)
            latencies.append(busy.p99 / quiet.p99)
            idle = used(local)
            bares.append(float(printed("bench.refresh_rate", "bare", str(port))))
            began = make_due(local)
            cores.append(100 * (used(local) - idle) / STEADY_SECONDS)
            assert_refreshed(local, began)
    return [
        at_least(f"GetAccount beside {STEADY_RATE} refreshes/s", rates, 0.85),
        at_most(f"its p99 beside {STEADY_RATE} refreshes/s", latencies, 1.5),
        below(f"{STEADY_RATE} refreshes/s, of one core", cores),
        # A refresh takes as much longer than the bare loop's, whichever the machine.
        below(
            f"the same of a core whose bare loop does {QUICK:,}/s",
            [core * bare / QUICK for core, bare in zip(cores, bares, strict=True)],
        ),
    ]


def below(name: str, shares: list[float]) -> Row:
    return Row(name, f"{told(shares)} %", "< 10 %", statistics.median(shares) < 10)


def ask_at(local: Local, port: int) -> None:
    """Sends refreshes to the token endpoint of the bench."""
    [endpoint] = re.findall('token_endpoint = ".*"', local.config_file.read_text())
    configure(local, endpoint, f'token_endpoint = "http://127.0.0.1:{port}/token"')


def used(local: Local) -> float:
    """What the service uses of one core in one turn."""
    before = cpu_seconds(local.pid("server"))
    time.sleep(STEADY_SECONDS)
    return cpu_seconds(local.pid("server")) - before


def make_due(local: Local) -> int:
    """Lets one grant after the other come up from now on, as many a second as a million accounts; the time."""
    now = int(time.time() * 1_000_000)
    gap = 1_000_000 // STEADY_RATE
    due = f"due_time = {now} + {gap} * CAST(substr(profile_id, 2) AS INTEGER)"
    return execute(local, f"UPDATE grants SET {due} WHERE profile_id LIKE 'p%'", now)


def assert_refreshed(local: Local, began: int) -> None:
    until = time.monotonic() + STEADY_SECONDS
    while late := execute(
        local, f"SELECT count(*) FROM grants WHERE profile_id LIKE 'p%' AND last_refresh_time < {began}"
    ):
        assert time.monotonic() < until, f"{late} were not refreshed"
        time.sleep(0.1)


def execute(local: Local, sql: str, otherwise: int = 0) -> int:
    """Beside the service, on its database file; the first value of the first row."""
    connection = cysqlite.Connection(str(local.folder / "accounts.db"), timeout=5)
    try:
        row = connection.execute(sql).fetchone()
        return otherwise if row is None else int(row[0])
    finally:
        connection.close()
