"""Refreshes a second: the whole path (claim, send, seal, commit) beside a bare loop of oauthlib and aiohttp.

Run as `python -m bench.refresh_rate bare PORT` or `... ours CONFIG`, it prints the rate; as `... connect CONFIG COUNT`
it leaves grants that are not due yet.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta
from pathlib import Path

import aiohttp
import uvloop
from oauthlib.oauth2 import WebApplicationClient

from server.accounts.grants import NewGrant, TokenSet
from server.accounts.model import Identity, Secret
from server.app import App
from server.collector import spare_the_collector
from server.parts import load_settings, new_id
from server.storage import accounts, grants
from server.storage.transaction import Transaction

AT_ONCE = 64
SECONDS = 4.0
GRANTS = 12_000
BATCH = 1_000


async def bare(port: int) -> float:
    """What the libraries can do by themselves, storing nothing."""
    done, until = 0, time.perf_counter() + SECONDS

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal done
        token = "rt-0"
        while time.perf_counter() < until:
            client = WebApplicationClient("id")
            body = client.prepare_refresh_body(refresh_token=token)
            headers = {"content-type": "application/x-www-form-urlencoded"}
            async with session.post(f"http://127.0.0.1:{port}/token", data=body, headers=headers) as response:
                token = client.parse_request_body_response(await response.text())["refresh_token"]
            done += 1

    began = time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:
        await asyncio.gather(*(work(session) for _ in range(AT_ONCE)))
    return done / (time.perf_counter() - began)


async def ours(config: Path) -> float:
    """The service's own refresher over grants that are all due."""
    app = App(load_settings(config), run_jobs=False)
    await app.start()
    spare_the_collector()
    await add(app, GRANTS, due_in=timedelta())
    await app.watching.poll()  # what the connects would tell watchers is no part of the refreshes
    began = time.perf_counter()
    refreshed = await app.refresher.run_once()
    rate = refreshed / (time.perf_counter() - began)
    assert refreshed == GRANTS, refreshed
    await app.stop()
    return rate


async def connect(config: Path, count: int) -> int:
    app = App(load_settings(config), run_jobs=False)
    await app.start()
    await add(app, count, due_in=timedelta(days=1))
    await app.stop()
    return count


async def add(app: App, count: int, due_in: timedelta) -> None:
    """What as many connects would leave."""
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        await app.store._write(lambda tx, numbers=numbers: [add_grant(tx, number, due_in) for number in numbers])


def add_grant(tx: Transaction, number: int, due_in: timedelta) -> None:
    token_set = TokenSet(Secret(f"at-{number}"), Secret(f"rt-{number}"), tx.now + timedelta(hours=1), ("users.read",))
    grant = NewGrant(
        id=new_id(),
        token_set=token_set,
        identities=(Identity(str(number), f"user{number}"),),
        missing_scopes=(),
        due_time=tx.now + due_in,
        identity_due_time=tx.now + timedelta(days=30),
    )
    [account_id] = accounts.attach(tx, f"p{number}", "twitter", "bench", grant)
    grants.add(tx, account_id, f"p{number}", "twitter", grant)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bare", port]:
            print(uvloop.run(bare(int(port))))
        case ["ours", config]:
            print(uvloop.run(ours(Path(config))))
        case ["connect", config, count]:
            print(uvloop.run(connect(Path(config), int(count))))
