"""The callback's edge under test: a real server on a port of the system's choice, over a use case that records."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from email.parser import BytesHeaderParser
from typing import Any

import aiohttp
import pytest
from yarl import URL

from server.accounts.errors import StoreUnavailable
from server.accounts.flow import AuthorizationResponse, ResultPage, ShowPage
from server.web.callback import CallbackServer

CALLBACK = "/oauth/callback/twitter"


async def nothing() -> None:
    """What a use case waits for unless a test says otherwise."""


class Edge:
    """A running callback server over a recording use case."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, AuthorizationResponse]] = []
        self.result: Any = ShowPage(ResultPage.EXPIRED)
        self.before: Callable[[], Awaitable[None]] = nothing
        self.healthy = True
        self.now = 1000.0
        self.health_checks = 0
        self.port = 0

    def server(self, grace: float = 1.0) -> CallbackServer:
        return CallbackServer(
            self.answer,
            self.health,
            timedelta(seconds=grace),
            platforms=["twitter", "linkedin"],
            clock=lambda: self.now,
        )

    async def answer(self, platform: str, response: AuthorizationResponse) -> Any:
        self.calls.append((platform, response))
        await self.before()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def health(self) -> bool:
        self.health_checks += 1
        if not self.healthy:
            raise StoreUnavailable("away")
        return True

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
        async with (
            aiohttp.ClientSession() as browser,
            browser.request(
                method,
                URL(f"http://127.0.0.1:{self.port}{path}", encoded=True),  # as it is written, right or wrong
                allow_redirects=False,
                headers=headers,
            ) as response,
        ):
            return response.status, response.headers, await response.read()

    async def raw(self, request: bytes) -> tuple[int, Any, bytes]:
        """Bytes as they are; the first answer to them."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        async with asyncio.timeout(5):
            status, _, head = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
            headers = BytesHeaderParser().parsebytes(head)
            body = await reader.readexactly(int(headers["Content-Length"]))
        writer.close()
        return int(status.split(b" ")[1]), headers, body


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = Edge()
    server = edge.server()
    edge.port = await server.start("127.0.0.1", 0)
    yield edge
    await server.stop()


def strict(headers: Any) -> None:
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in headers
