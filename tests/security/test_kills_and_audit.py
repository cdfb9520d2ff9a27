"""A server killed while people connect and revoke (row I1): what was committed has one record each, and no more."""

import asyncio
import json
import random
import secrets
from collections import Counter
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from synposter_accounts import AccountsError, AsyncAccounts

from server.accounts.flow import Phase
from server.accounts.model import Status
from tests.e2e.conftest import browse
from tests.e2e.test_operating import command
from tests.faults.processes import Fleet, fleet
from tests.postgres import fresh_database

WORKERS = 6


class Told:
    """What callers were told, by account id."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        self.revoked: set[str] = set()


async def worker(running: Fleet, accounts: AsyncAccounts, told: Told) -> None:
    """Connects, says no, completes for the wrong profile, and revokes, until the server is gone."""
    chance, return_url = random.Random(), f"{running.servers[0].public_url}/your-app"
    while True:
        profile_id = f"p/{secrets.token_hex(8)}"
        begun = await accounts.begin_connect(profile_id, "twitter", return_url=return_url)
        decision = "deny" if chance.random() < 0.2 else "allow"
        back = await browse(await running.sandbox.consent(begun.authorization_url, "ada", decision))
        if "completion_code" not in back:
            continue
        with suppress(AccountsError):
            if chance.random() < 0.2:
                await accounts.complete_connect("victim", completion_code=back["completion_code"])
        with suppress(AccountsError):
            [account] = await accounts.complete_connect(profile_id, completion_code=back["completion_code"])
            told.connected.add(account.id)
            if chance.random() < 0.5:
                await accounts.revoke(account.id)
                told.revoked.add(account.id)


async def killed_at_work(running: Fleet, told: Told, after: float) -> None:
    local = running.servers[0]
    async with AsyncAccounts(local.target, local.api_key) as accounts:
        workers = [asyncio.create_task(worker(running, accounts, told)) for _ in range(WORKERS)]
        await asyncio.sleep(after)
        await asyncio.to_thread(local.kill, "server")
        for task in workers:
            task.cancel()
        for ended in await asyncio.gather(*workers, return_exceptions=True):
            if not isinstance(ended, AccountsError | aiohttp.ClientError | asyncio.CancelledError):
                raise AssertionError("a worker failed") from ended
    await asyncio.to_thread(local.start_server)


def rows(running: Fleet) -> tuple[dict[str, str], dict[str, int]]:
    """The phase of each connect and the status of each account."""
    phases = running.sql("SELECT id, phase FROM authorization_requests")
    return dict(phases), dict(running.sql("SELECT id, status FROM accounts"))  # type: ignore[arg-type]


def check(running: Fleet, told: Told) -> None:
    """One record of each change that is there, and no record of one that is not."""
    while True:  # the server is back, and may be giving up what was cut off
        phases, statuses = rows(running)
        events = running.sql("SELECT kind, account_id, facts FROM events")
        if rows(running) == (phases, statuses):
            break
    of_connect = Counter((kind, json.loads(facts).get("connect_id")) for kind, _, facts in events)
    of_account = Counter((kind, account_id) for kind, account_id, _ in events)
    for connect_id, phase in phases.items():
        assert of_connect["connect_begun", connect_id] == 1
        assert of_connect["connect_failed", connect_id] == (phase == Phase.FAILED), connect_id
    for account_id, status in statuses.items():
        assert of_account["connected", account_id] == 1, account_id
        assert of_account["revoked", account_id] == (status == Status.REVOKED.value), account_id
    kinds = Counter(kind for kind, _, _ in events)
    assert kinds["connected"] == len(statuses)
    assert kinds["revoked"] == sum(status == Status.REVOKED.value for status in statuses.values())
    assert told.connected <= statuses.keys()
    assert {each for each in told.revoked if statuses[each] != Status.REVOKED.value} == set()


@pytest.mark.parametrize(
    ("store", "kills"),
    [
        ("sqlite", 3),
        pytest.param("sqlite", 500, marks=pytest.mark.long),
        pytest.param("postgres", 500, marks=pytest.mark.long),
    ],
)
async def test_i1_every_change_that_survives_a_kill_has_exactly_one_record(
    tmp_path: Path, request: pytest.FixtureRequest, store: str, kills: int
) -> None:
    url = fresh_database(request.getfixturevalue("postgres")) if store == "postgres" else None
    async with fleet(tmp_path, database_url=url) as running:
        running.start()
        told, chance = Told(), random.Random(20261124)
        # On a busy machine a kill may come before any work; then it is killed again.
        for number in range(1, 10 * kills):
            await killed_at_work(running, told, after=chance.uniform(0.05, 0.6))
            if number % 10 == 0 or kills < 10:
                check(running, told)
            if number >= kills and len(told.connected) > kills and told.revoked:
                break
        else:
            pytest.fail("there was never work to be killed at")
        verified = command(running.servers[0], "audit", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
