"""The callback's edge: strict with what comes in, constant in what goes out."""

import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from server.accounts.errors import StoreUnavailable
from server.accounts.flow import AuthorizationResponse, ResultPage, SendBrowser, ShowPage
from server.web.callback import CallbackServer
from server.web.pages import PAGES

CALLBACK = "/oauth/callback/twitter"
POLYGLOTS = [
    "<svg onload=alert(1)>",
    '"><script>alert(1)</script>',
    "javascript:alert(1)",
    "{{7*7}}${7*7}",
    "%0d%0aSet-Cookie:a=b",
    "\u202etxt.exe",
    "'||(select 1)||'",
    "<!--#exec cmd=ls-->",
    "</title><img src=x onerror=alert(1)>",
]


class Edge:
    """A running callback server over a recording use case."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, AuthorizationResponse]] = []
        self.result: Any = ShowPage(ResultPage.EXPIRED)
        self.healthy = True
        self.port = 0

    async def answer(self, platform: str, response: AuthorizationResponse) -> Any:
        self.calls.append((platform, response))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def health(self) -> bool:
        if not self.healthy:
            raise StoreUnavailable("away")
        return True

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
        async with (
            aiohttp.ClientSession() as browser,
            browser.request(
                method, f"http://127.0.0.1:{self.port}{path}", allow_redirects=False, headers=headers
            ) as response,
        ):
            return response.status, response.headers, await response.read()

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
            line.sendall(request)
            line.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := line.recv(65536):
                received += chunk
        return received


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = Edge()
    server = CallbackServer(edge.answer, edge.health, timedelta(seconds=1))
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


async def test_a_response_reaches_the_domain_as_it_came(edge: Edge) -> None:
    await edge.get(f"{CALLBACK}?state=s%2Bt&code=c+d&iss=https%3A%2F%2Fx.test&extra=1")
    [(platform, response)] = edge.calls
    assert platform == "twitter"
    assert (response.state.reveal(), response.code and response.code.reveal()) == ("s+t", "c d")
    assert (response.iss, response.error) == ("https://x.test", "")


@pytest.mark.parametrize("page", list(ResultPage))
async def test_each_result_has_its_page_with_strict_headers(edge: Edge, page: ResultPage) -> None:
    edge.result = ShowPage(page)
    status, headers, body = await edge.get(f"{CALLBACK}?state=s&code=c")
    assert (status, body) == (PAGES[page].status, PAGES[page].body)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    strict(headers)


async def test_the_browser_is_sent_exactly_where_the_domain_says(edge: Edge) -> None:
    edge.result = SendBrowser("https://app.test/done?lang=en&connect_id=1&completion_code=x%2By")
    status, headers, body = await edge.get(
        f"{CALLBACK}?state=s&code=c",
        Host="evil.test",
        Referer="https://evil.test/",
        **{"X-Forwarded-Host": "evil.test"},
    )
    assert (status, headers["Location"], body) == (303, edge.result.url, b"")
    strict(headers)


@pytest.mark.parametrize("text", POLYGLOTS)
async def test_nothing_of_the_request_is_reflected(edge: Edge, text: str) -> None:
    from urllib.parse import quote

    for name in ("error_description", "error", "state", "code", "other"):
        query = {"state": "s", name: text}
        path = f"{CALLBACK}?" + "&".join(f"{key}={quote(value)}" for key, value in query.items())
        _, _, body = await edge.get(path)
        assert body in (PAGES[ResultPage.EXPIRED].body, PAGES[ResultPage.FAILED].body)
    _, headers, body = await edge.get(f"/oauth/callback/{quote(text, safe='')}?state=s&code=c")
    assert body in (PAGES[ResultPage.EXPIRED].body, b"404\n")
    strict(headers)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "code=c",
        "state=&code=c",
        "state=a&state=b&code=c",
        "state=a&code=c&code=d",
        "state=a&iss=b&iss=b",
        "state[]=a&code=c",
        "state=a%00&code=c",
        "state=%ff%fe&code=c",
        "state=a&code=c&response=eyJ",
        "state=" + "a" * 501,
        "state=a&code=" + "c" * 4097,
        "state=a&code=c&pad=" + "x" * 9000,
        "state",
    ],
    ids=lambda query: query[:24] or "nothing",
)
async def test_a_malformed_query_is_refused_before_the_domain_is_asked(edge: Edge, query: str) -> None:
    status, headers, _ = await edge.get(f"{CALLBACK}?{query}")
    assert status in (400, 414)
    assert edge.calls == []
    assert "Server" not in headers


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
async def test_only_get_consumes(edge: Edge, method: str) -> None:
    status, headers, _ = await edge.get(f"{CALLBACK}?state=s&code=c", method)
    assert status == 405
    assert edge.calls == []
    strict(headers)


@pytest.mark.parametrize(
    "path",
    ["/", "/metrics", "/oauth/callback", "/oauth/callback/", "/oauth/callback/a/b", "/healthz/", "/docs", "/.env"],
)
async def test_nothing_else_is_served(edge: Edge, path: str) -> None:
    status, headers, body = await edge.get(path)
    assert (status, body) == (404, b"404\n")
    strict(headers)


async def test_health_follows_the_database(edge: Edge) -> None:
    assert (await edge.get("/healthz"))[0] == 200
    edge.healthy = False
    assert (await edge.get("/healthz"))[0] == 503


async def test_a_store_that_is_away_is_503_and_a_bug_is_500_without_its_text(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.result = StoreUnavailable("away")
    assert (await edge.get(f"{CALLBACK}?state=s&code=c"))[0] == 503
    edge.result = RuntimeError("canary in the text")
    status, headers, body = await edge.get(f"{CALLBACK}?state=state-canary&code=code-canary")
    assert (status, body) == (500, PAGES[ResultPage.FAILED].body)
    strict(headers)
    assert "code-canary" not in caplog.text and "state-canary" not in caplog.text


async def test_the_log_line_has_no_query(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        await edge.get(f"{CALLBACK}?state=state-canary&code=code-canary")
    assert any(record.message == "http" for record in caplog.records)
    assert all("canary" not in str(record.__dict__) for record in caplog.records)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 20_000 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    ],
    ids=["nonsense", "version", "long line", "long header", "http2", "connect"],
)
async def test_malformed_http_is_refused_without_a_banner(edge: Edge, request_bytes: bytes) -> None:
    import asyncio

    answer = await asyncio.to_thread(edge.raw, request_bytes)
    head = answer.partition(b"\r\n\r\n")[0]
    assert not answer or head.split(b" ")[1][:1] == b"4", head
    assert b"server:" not in head.lower() and b"aiohttp" not in answer.lower()
