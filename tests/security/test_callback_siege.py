"""A siege of a real server's callback (row B4): half-open connections and a flood, while people and grants go on."""

import asyncio
import multiprocessing
import os
import secrets
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from synposter_accounts import AsyncAccounts

from server.web.protocol import HEADER_SECONDS, MOST_CONNECTIONS
from tests.faults.processes import Fleet, fleet, until

PATIENCE = 60.0


def flood(port: int, each_second: int, answers: Any) -> None:
    """Random states without end, so many a second, each on a connection of its own; in a process of its own."""
    began, sent = time.time(), 0
    while True:
        if sent > (time.time() - began) * each_second:
            time.sleep(0.001)
            continue
        sent += 1
        request = f"GET /oauth/callback/twitter?state={secrets.token_urlsafe(32)}&code=c HTTP/1.1\r\nHost: a\r\n\r\n"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request.encode())
            answers[connection.recv(65536)[9:12] == b"503"] += 1


def half_open(port: int, count: int) -> None:
    """So many connections that each send a byte of a header a second, and come again when they are cut off."""

    async def drip() -> None:
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /oauth/callback/twitter?state=s HTTP/1.1\r\nX: ")
                while not writer.is_closing():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(1)
            await asyncio.sleep(0.2)

    async def drips() -> None:
        await asyncio.gather(*(drip() for _ in range(count)))

    asyncio.run(drips())


@contextmanager
def attacked(attack: Callable[..., None], *how: Any) -> Iterator[None]:
    """By a process of its own: people must not wait for their attackers."""
    process = multiprocessing.get_context("spawn").Process(target=attack, args=how, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


@contextmanager
def flooded(port: int, each_second: int) -> Iterator[Any]:
    """Yields how often the flood was answered: with the page that nothing is known, and with the busy one."""
    answers = multiprocessing.get_context("spawn").Array("q", 2)
    with attacked(flood, port, each_second, answers):
        yield answers


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def megabytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def person(running: Fleet, accounts: AsyncAccounts) -> float:
    """Seconds until a browser with a good answer is sent on; busy pages are tried again as they say."""
    return_url = f"{running.servers[0].public_url}/your-app"
    begun = await accounts.begin_connect(f"p/{secrets.token_hex(8)}", "twitter", return_url=return_url)
    callback = await running.sandbox.consent(begun.authorization_url, "ada")
    start = time.perf_counter()
    async with aiohttp.ClientSession() as browser, asyncio.timeout(PATIENCE):
        while True:
            async with browser.get(callback, allow_redirects=False) as response:
                if response.status == 303:
                    return time.perf_counter() - start
                assert response.status == 503
                await asyncio.sleep(int(response.headers["Refresh"]))


async def test_b4_a_header_that_drips_is_cut_off_by_a_real_server_after_five_seconds(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        running.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.servers[0].ports["http"])
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        began = time.monotonic()
        while not reader.at_eof():
            writer.write(b"x")
            try:
                await asyncio.wait_for(reader.read(1), 0.5)
            except TimeoutError:
                assert time.monotonic() - began < HEADER_SECONDS + 2
            except ConnectionError:
                break
        assert HEADER_SECONDS - 1 < time.monotonic() - began < HEADER_SECONDS + 2


@pytest.mark.alone
@pytest.mark.parametrize(
    ("sockets", "each_second", "seconds"),
    [(700, 300, 8.0), pytest.param(2_000, 400, 300.0, marks=pytest.mark.long)],
)
async def test_b4_people_come_through_a_siege_and_grants_are_refreshed_as_if_there_were_none(
    tmp_path: Path, sockets: int, each_second: int, seconds: float
) -> None:
    async with fleet(tmp_path, access_token_seconds=7200) as running:
        local = running.servers[0]
        await running.seed(50)
        running.start()
        port, pid = local.ports["http"], local.pid("server")
        async with AsyncAccounts(local.target, local.api_key) as accounts:
            await until(lambda: running.refreshed() == 50)
            await person(running, accounts)
            files, memory = descriptors(pid), megabytes(pid)
            took = []
            with flooded(port, each_second) as answers, attacked(half_open, port, sockets):
                await until(lambda: answers[0] > 100 and descriptors(pid) > files + MOST_CONNECTIONS * 0.9)
                ends = time.monotonic() + seconds
                running.make_due(in_seconds=seconds / 2)
                while time.monotonic() < ends:
                    took.append(await person(running, accounts))
                    await asyncio.sleep(0.05)
                    assert descriptors(pid) <= files + MOST_CONNECTIONS + 20
                assert running.sql("SELECT count(*) FROM grants WHERE generation > 2") == [(50,)]
                grown = megabytes(pid) - memory
                assert sum(answers) > each_second * seconds * 0.3, "it was a siege, however busy the machine"
            await until(lambda: descriptors(pid) <= files + 3, patience=HEADER_SECONDS + 5)
        slowest = statistics.quantiles(took, n=100)[98] if len(took) > 1 else took[0]
        assert slowest < 1.0, f"p99 of {len(took)} people"
        assert grown < 50, "megabytes"


@pytest.mark.alone
async def test_b4_a_flood_beyond_the_rate_slows_people_down_and_stops_none(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        running.start()
        local = running.servers[0]
        async with AsyncAccounts(local.target, local.api_key) as accounts:
            await person(running, accounts)
            with flooded(local.ports["http"], 5_000) as answers:
                await until(lambda: answers[1] > 500)
                took = [await person(running, accounts) for _ in range(5)]
        assert max(took) < 20, "an authorization code of X lives for thirty seconds"
