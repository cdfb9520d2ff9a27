"""The callback under a flood (row B4): connections, headers and requests have their limits, and people come through."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from server.accounts.flow import ResultPage
from server.web import protocol
from server.web.callback import CALLBACKS_A_SECOND, HEALTH_CHECKS_A_SECOND
from server.web.pages import BUSY, PAGES
from tests.web.conftest import CALLBACK, Edge, strict

FAILED = PAGES[ResultPage.FAILED].body
EXPIRED = PAGES[ResultPage.EXPIRED].body
REQUEST = b"GET " + CALLBACK.encode() + b"?state=s&code=c HTTP/1.1\r\nHost: a\r\n"
PATIENCE = 10.0
PLACES = 5

Socket = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def deadline(monkeypatch: pytest.MonkeyPatch) -> float:
    """The deadline of a header, so short that a test can live through it."""
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.3)
    return 0.3


@pytest.fixture
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", PLACES)


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = Edge()
    async with served(edge):
        yield edge


@asynccontextmanager
async def served(edge: Edge) -> AsyncIterator[None]:
    server = edge.server()
    edge.port = await server.start("127.0.0.1", 0)
    yield
    await server.stop()


@asynccontextmanager
async def connection(edge: Edge) -> AsyncIterator[Socket]:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the connection is closed."""
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionError):
            return await reader.read()
    return b""


# --- one connection


async def test_a_header_that_drips_is_cut_off_at_its_deadline(deadline: float, edge: Edge) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST)
        while True:
            writer.write(b"X")
            await asyncio.sleep(deadline / 10)

    async with connection(edge) as (reader, writer):
        began = time.monotonic()
        dripping = asyncio.create_task(drip(writer))
        assert await rest(reader) == b""
        dripping.cancel()
        assert deadline * 0.9 < time.monotonic() - began < deadline + 2


async def test_a_body_is_not_waited_for(edge: Edge) -> None:
    async with connection(edge) as (reader, writer):
        writer.write(REQUEST + b"Content-Length: 1000000\r\n\r\n")
        assert (await rest(reader)).startswith(b"HTTP/1.1 410 ")


async def test_a_connection_carries_one_request_and_nothing_piles_up_behind_it(edge: Edge) -> None:
    async with connection(edge) as (reader, writer):
        writer.write((REQUEST + b"Connection: keep-alive\r\n\r\n") * 100)
        answers = await rest(reader)
    assert answers.count(b"HTTP/1.1 ") == 1 and b"Connection: close" in answers
    assert len(edge.calls) == 1


async def test_what_is_sent_behind_a_request_under_way_changes_nothing_about_its_answer(edge: Edge) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        arrived.set()
        await go_on.wait()

    edge.before = slow
    async with connection(edge) as (reader, writer):
        writer.write(REQUEST + b"\r\n")
        async with asyncio.timeout(PATIENCE):
            await arrived.wait()
        writer.write(b"x" * 20_000)
        for _ in range(100):  # turns of the loop, in which it arrives
            await asyncio.sleep(0)
        go_on.set()
        assert (await rest(reader)).startswith(b"HTTP/1.1 410 ")


@pytest.mark.parametrize(("padding", "status"), [(14_000, 410), (17_000, 400), (1_000_000, 400)])
async def test_a_header_of_more_than_16_kib_in_all_is_refused_unread(edge: Edge, padding: int, status: int) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 990) for number in range(padding // 1000))
    got, headers, body = await edge.raw(REQUEST + lines + b"\r\n")
    assert (got, body) == (status, EXPIRED if status == 410 else FAILED)
    strict(headers)
    assert len(edge.calls) == (status == 410)


async def test_a_query_of_a_megabyte_is_answered_with_the_page(edge: Edge) -> None:
    async with connection(edge) as (reader, writer):
        for part in (b"GET " + CALLBACK.encode() + b"?state=s&code=", *[b"c" * 10_000] * 100, b" HTTP/1.1\r\n\r\n"):
            writer.write(part)
            await writer.drain()
        assert (await rest(reader)).endswith(FAILED)
    assert edge.calls == []


# --- many connections


async def test_who_holds_all_places_in_silence_makes_room_for_a_person(few_places: None, edge: Edge) -> None:
    held = [await asyncio.open_connection("127.0.0.1", edge.port) for _ in range(PLACES)]
    for _, writer in held:
        writer.write(b"GET /oauth")
    assert (await edge.get(f"{CALLBACK}?state=s&code=c"))[0] == 410
    assert await rest(held[0][0]) == b"", "the one that has been silent for longest"
    held[1][1].write(REQUEST.removeprefix(b"GET /oauth") + b"\r\n")
    assert (await rest(held[1][0])).startswith(b"HTTP/1.1 410 "), "the others are as they were"
    for _, writer in held:
        writer.close()


async def test_who_is_being_served_makes_room_for_nobody(few_places: None, edge: Edge) -> None:
    go_on, under_way = asyncio.Event(), asyncio.Semaphore(0)

    async def slow() -> None:
        under_way.release()
        await go_on.wait()

    edge.before = slow
    people = [asyncio.create_task(edge.get(f"{CALLBACK}?state=s&code=c")) for _ in range(PLACES)]
    async with asyncio.timeout(PATIENCE):
        for _ in people:
            await under_way.acquire()
    async with connection(edge) as (reader, _):
        assert await rest(reader) == b"", "the newcomer is turned away"
    go_on.set()
    assert [status for status, _, _ in await asyncio.gather(*people)] == [410] * PLACES
    assert len(edge.calls) == PLACES, "nobody had to come again"
    assert (await edge.get(f"{CALLBACK}?state=s&code=c"))[0] == 410, "and their places are free again"


# --- many requests


async def test_browsers_beyond_the_rate_of_all_together_come_again_and_nothing_is_used_up(edge: Edge) -> None:
    for _ in range(int(CALLBACKS_A_SECOND)):
        await edge.get(f"{CALLBACK}?state=s&code=c")
    edge.calls.clear()
    status, headers, body = await edge.get(f"{CALLBACK}?state=mine&code=c")
    assert (status, body, edge.calls) == (503, BUSY.body, [])
    assert (headers["Refresh"], headers["Retry-After"]) == ("1", "1")
    strict(headers)
    assert (await edge.get("/oauth/callback/linkedin?state=s"))[0] == 503, "all platforms together"
    edge.now += 1
    assert (await edge.get(f"{CALLBACK}?state=mine&code=c"))[0] == 410
    assert [response.state.reveal() for _, response in edge.calls] == ["mine"]


async def test_a_flood_writes_no_more_log_than_the_rate_allows(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        for path in ("/.env", "/oauth/callback/friendster?state=s", "/healthz"):
            await edge.get(path)
        await edge.raw(b"GET / HTTP/9.9\r\n\r\n")
        await edge.raw(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n")
        assert caplog.records == []
        for _ in range(int(CALLBACKS_A_SECOND) + 20):
            await edge.get(f"{CALLBACK}?state=s&code=c")
    assert [record.message for record in caplog.records] == ["http"] * int(CALLBACKS_A_SECOND)


async def test_a_flood_of_health_checks_asks_the_database_ten_times_a_second(edge: Edge) -> None:
    for _ in range(50):
        assert (await edge.get("/healthz"))[0] == 200
    assert edge.health_checks == HEALTH_CHECKS_A_SECOND
    edge.healthy = False
    assert (await edge.get("/healthz"))[0] == 200, "as it was last seen"
    edge.now += 1
    assert (await edge.get("/healthz"))[0] == 503
