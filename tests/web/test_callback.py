"""The callback's edge: strict with what comes in, constant in what goes out."""

import asyncio
from datetime import timedelta
from urllib.parse import quote

import aiohttp
import pytest

from server.accounts.errors import StoreUnavailable
from server.accounts.flow import AuthorizationResponse, ResultPage, SendBrowser, ShowPage
from server.web.callback import CallbackServer
from server.web.pages import PAGES
from tests.web.conftest import CALLBACK, Edge, strict

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
    "</style><style>@import'//evil.test'</style>",
    "jaVasCript:/*-/*`/*\\`/*'/*\"/**/(/* */oNcliCk=alert() )//</stYle/</titLe/--!>\\x3csVg/<sVg/oNloAd=alert()>",
    "\u202e\u2028\ufeff",
    "%s%n{0.__class__}{kind}{title}",
]
FAILED = PAGES[ResultPage.FAILED].body


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
    for name in ("error_description", "error", "state", "code", "other"):
        query = {"state": "s", name: text}
        path = f"{CALLBACK}?" + "&".join(f"{key}={quote(value)}" for key, value in query.items())
        _, _, body = await edge.get(path)
        assert body in (PAGES[ResultPage.EXPIRED].body, FAILED)
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
        "state=a&state[]=b&code=c",
        "state=a&st%61te=b&code=c",
        "state=a%00&code=c",
        "state=a&code=c&%00=b",
        "state=a%zz&code=c",
        "state=a&code=c%",
        "state=%ff%fe&code=c",
        "state=a&code=c&response=eyJ",
        "state=" + "a" * 501,
        "state=a&code=" + "c" * 4097,
        "state=a&error=" + "e" * 257,
        "state=a&code=c" + "".join(f"&pad{number}={'x' * 1000}" for number in range(9)),
        "state=a&code=c&pad=" + "x" * 20_000,
        "state",
    ],
    ids=lambda query: query[:24] or "nothing",
)
async def test_a_malformed_query_is_refused_before_the_domain_is_asked(edge: Edge, query: str) -> None:
    status, headers, body = await edge.get(f"{CALLBACK}?{query}")
    assert (status, body) == (400, FAILED)
    assert edge.calls == []
    strict(headers)


@pytest.mark.parametrize(
    "query", [b"state=a\0b&code=c", b"state=\xff\xfe&code=c", b"state=a#b&code=c"], ids=["nul", "not utf-8", "fragment"]
)
async def test_bytes_that_no_query_has_are_refused_before_the_domain_is_asked(edge: Edge, query: bytes) -> None:
    status, headers, body = await edge.raw(b"GET " + CALLBACK.encode() + b"?" + query + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (status, body, edge.calls) == (400, FAILED, [])
    strict(headers)


@pytest.mark.parametrize("query", ["state=" + "a" * 500, "state=a&code=" + "c" * 4096, "state=a&error=" + "e" * 256])
async def test_the_longest_that_a_platform_may_send_is_taken(edge: Edge, query: str) -> None:
    await edge.get(f"{CALLBACK}?{query}")
    assert len(edge.calls) == 1


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
async def test_only_get_consumes(edge: Edge, method: str) -> None:
    status, headers, _ = await edge.get(f"{CALLBACK}?state=s&code=c", method)
    assert status == 405
    assert edge.calls == []
    strict(headers)


async def test_a_link_that_a_scanner_has_looked_at_still_works(edge: Edge) -> None:
    await edge.get(f"{CALLBACK}?state=s&code=c", "HEAD")
    await edge.get(f"{CALLBACK}?state=s&code=c")
    [(_, response)] = edge.calls
    assert response.state.reveal() == "s"


@pytest.mark.parametrize("path", [CALLBACK + "?state=s", "/healthz", "/nothing"])
async def test_an_unknown_expectation_is_refused_without_being_quoted(edge: Edge, path: str) -> None:
    status, headers, body = await edge.get(path, Expect="<canary>")
    assert (status, body, edge.calls) == (417, b"417\n", [])
    strict(headers)


async def test_headers_reach_no_page(edge: Edge) -> None:
    names = ("Host", "Origin", "Referer", "User-Agent", "Cookie", "Accept", "Accept-Language", "X-Forwarded-Proto")
    _, plain, body = await edge.get(f"{CALLBACK}?state=s&code=c")
    _, headers, same = await edge.get(f"{CALLBACK}?state=s&code=c", **dict.fromkeys(names, "<canary>"))
    assert same == body
    assert {**headers, "Date": ""} == {**plain, "Date": ""}


@pytest.mark.parametrize(
    "path",
    ["/", "/metrics", "/oauth/callback", "/oauth/callback/", "/oauth/callback/a/b", "/healthz/", "/docs", "/.env"],
)
async def test_nothing_else_is_served(edge: Edge, path: str) -> None:
    status, headers, body = await edge.get(path)
    assert (status, body) == (404, b"404\n")
    strict(headers)


async def test_health_follows_the_database(edge: Edge) -> None:
    status, headers, body = await edge.get("/healthz")
    assert (status, body) == (200, b"ok\n")
    strict(headers)
    edge.healthy = False
    status, headers, body = await edge.get("/healthz")
    assert (status, body) == (503, b"the database does not answer\n")
    strict(headers)


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
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: b\r\n" * 100 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    ],
    ids=["nonsense", "version", "long line", "long header", "http2", "many headers", "two lengths"],
)
async def test_malformed_http_is_refused_without_a_banner(edge: Edge, request_bytes: bytes) -> None:
    status, headers, body = await edge.raw(request_bytes)
    assert (status, body, edge.calls) == (400, FAILED, [])
    strict(headers)


async def test_malformed_http_is_not_quoted_in_the_log(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        await edge.raw(b"GET /?state=canary HTTP/9.9\r\nX: canary\r\n\r\n")
    assert any(record.message == "malformed http" for record in caplog.records)
    assert all("canary" not in str(record.__dict__) for record in caplog.records)


async def test_no_tunnel_is_opened(edge: Edge) -> None:
    status, headers, body = await edge.raw(b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test\r\n\r\n")
    assert (status, body) == (404, b"404\n")
    strict(headers)


async def test_a_stop_lets_a_person_under_way_arrive_and_takes_nobody_new(edge: Edge) -> None:
    arrived, stopping = asyncio.Event(), asyncio.Event()

    async def slow(platform: str, response: AuthorizationResponse) -> ShowPage:
        arrived.set()
        await stopping.wait()
        return ShowPage(ResultPage.CONNECTED)

    server = CallbackServer(slow, edge.health, timedelta(seconds=5), platforms=["twitter"])
    edge.port = await server.start("127.0.0.1", 0)
    under_way = asyncio.create_task(edge.get(f"{CALLBACK}?state=s&code=c"))
    await arrived.wait()
    stop = asyncio.create_task(server.stop())
    async with asyncio.timeout(5):
        while await listens(edge.port):
            pass
        done, _ = await asyncio.wait({stop, under_way}, timeout=0.1)
        assert done == set(), "it waits for whoever is under way"
        stopping.set()
        assert (await under_way)[0] == 200
        await stop


async def test_a_stop_waits_no_longer_than_its_grace(edge: Edge) -> None:
    arrived, never = asyncio.Event(), asyncio.Event()

    async def hangs(platform: str, response: AuthorizationResponse) -> ShowPage:
        arrived.set()
        await never.wait()
        return ShowPage(ResultPage.CONNECTED)

    server = CallbackServer(hangs, edge.health, timedelta(seconds=1), platforms=["twitter"])
    edge.port = await server.start("127.0.0.1", 0)
    under_way = asyncio.create_task(edge.get(f"{CALLBACK}?state=s&code=c"))
    await arrived.wait()
    async with asyncio.timeout(1.8):
        await server.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await under_way


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_a_port_that_is_taken_is_an_error(edge: Edge) -> None:
    server = edge.server()
    with pytest.raises(OSError):
        await server.start("127.0.0.1", edge.port)
    await server.stop()


async def test_a_platform_that_is_not_registered_has_no_path_and_uses_no_state_up(edge: Edge) -> None:
    for platform in ("friendster", "Twitter", "twitter%2F", "twitter;a"):
        status, headers, body = await edge.get(f"/oauth/callback/{platform}?state=s&code=c")
        assert (status, body, edge.calls) == (404, b"404\n", [])
        strict(headers)
