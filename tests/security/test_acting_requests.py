"""What a caller cannot have sent on an account's behalf, whatever it asks for (rows F1, F4 and F6)."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from synposter.accounts.v1.platform_service_pb2 import Header, QueryParameter

from tests.security.acting import Acting, acting

HOSTS = ("evil.test", "127.0.0.1:9", "[::1]", "169.254.169.254", "0x7f.1", "evil.test:443", "api.x.com.evil.test")
DOTS = (".", "..", "...\\", "%2e", "%2e%2e", ".%2e", "%2E.", "..;", "..%00", ".\t.", "．．", "..%2f..", "%252e%252e")
LEADS = ("\t", " ", "\n", "\r\n", "\0", "\x0b", "\u2028", "\ufeff", "/", "./")
OAUTH = ("oauth", "oauth2", "OAuth2", "OAUTH", "oauth1.0")
PATHS = [
    *(f"{lead}{host}/2/tweets" for host in HOSTS for lead in ("//", "///", "https://", "http://", "/\\", "\\\\", "")),
    *(f"{lead}https://evil.test/x" for lead in LEADS),
    *(f"/2/{dots}/tweets" for dots in DOTS), *(f"/2/users/{dots}" for dots in DOTS),
    *(f"/2/users/12{mark}34" for mark in "\\?#%@;,:=&+$!*'()[]{}<>|^`\" \t\r\n\0\x01\x1f\x7f\x80\xa0"),
    *(f"/2/users/{odd}" for odd in ("é", "用户", "\u202e", "\u200d", "ａ", "\ud7ff", "\U0001f600", "ß", "ſ", "\u212a")),
    *(f"/2/users/me{end}" for end in ("/", "//", "/.", "/..", "?x=1", "#x", "%23", "%3f", "%00", "%0d%0a", ";x", " ")),
    *(f"{begin}2/users/me" for begin in ("", ".", "./", "../", "\\", "?", "#", "@", ":", "2/../", "*", "x:/")),
    *(f"/2//{end}" for end in ("", "users", "users/me", "/")),
    "", "/", "//", "///", "/ ", "\\", ".", "..", "/.", "/..", "*", "?", "#", "/\0", "https:", "javascript:x()",
    "/2/users/me HTTP/1.1\r\nHost: evil.test", "/2/users/me\r\nX: y", "/2/users/me HTTP/1.0",
    "/" + "a" * 1024, "/a" * 600, "/2/users/{id}", "/2/tweets/12%2F..%2Foauth2%2Ftoken",
    "/" + quote("/evil.test", safe=""),
    *(f"/{before}{oauth}{end}" for before in ("", "2/", "i/") for oauth in OAUTH
      for end in ("", "/token", "/revoke", "/invalidate_token", "/introspect")),
]  # fmt: skip
METHODS = [
    "", "get", "Get", "post", "CONNECT", "TRACE", "OPTIONS", "PROPFIND", "GET ", " GET", "GET\r\n", "GET\0", "PRI", "*",
    "GET /x HTTP/1.1\r\n", "DEBUG", "GET,POST", "ＧＥＴ", "PURGE", "LINK", "X" * 200, "GET\tPOST",
]  # fmt: skip
FORBIDDEN = (
    "authorization", "host", "cookie", "content-length", "transfer-encoding", "te", "trailer", "connection", "upgrade",
    "keep-alive", "proxy-authorization", "proxy-connection", "dpop", "expect", "via", "forwarded", "x-forwarded-for",
    "x-forwarded-host", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url", "referer",
    "content-type", "accept-encoding", "origin", "range", "x-restli-method", "linkedin-version", "set-cookie",
    "user-agent",
)  # fmt: skip
NAMES = [
    *FORBIDDEN,
    *(name.upper() for name in FORBIDDEN),
    *(name.replace("-", "_") for name in FORBIDDEN if "-" in name),
    *(odd.format(name) for name in FORBIDDEN[:6] for odd in ("{} ", " {}", "{}:", "{}\r\n ", "\t{}")),
    "", ":", ":path", ":authority", "accept\r\nhost", "accept\0", "accept\t", "ａccept", "accépt", "accept;", "a" * 65,
]  # fmt: skip
VALUES = [
    "a\r\nHost: evil.test", "a\nb", "a\rb", "a\0b", "a\tb", "a\x7f", "é", "\u2028", "", " ", "a ", " a", "x" * 1025,
    "a\r\n b", "a\r\n\tb", "a\x0bb", "a\x85b", "*/*\r\n\r\nGET /evil HTTP/1.1",
]  # fmt: skip
QUERIES = [
    ("", "x"), ("a\r\nb", "x"), ("a\0", "x"), ("a", "x\r\nHost: evil"), ("a", "\0"), ("n" * 129, "x"),
    ("a", "x" * 17_000),
    ("access_token", "x"), ("ACCESS_TOKEN", "x"), ("oauth2_access_token", "x"), ("oauth_token", "x"),
]  # fmt: skip


def hostile() -> Iterator[tuple[str, dict[str, Any]]]:
    """Field that must be named, and the request."""
    for path in PATHS:
        yield "path", {"path": path}
    for method in METHODS:
        yield "method", {"method": method}
    for name in NAMES:
        yield "headers", {"headers": [Header(name=name, value="x")]}
    for value in VALUES:
        yield "headers", {"headers": [Header(name="accept", value=value)]}
    yield "headers", {"headers": [Header(name="accept", value="a"), Header(name="Accept", value="b")]}
    for name, text in QUERIES:
        yield "query", {"query": [QueryParameter(name=name, value=text)]}
    for kind in ("", "json", "a/b\r\nX: y", "a/b; c", "é/b", "a/b" * 100, "text/plain;\0"):
        yield "content_type", {"method": "POST", "path": "/2/tweets", "body": b"{}", "content_type": kind}
    for method in ("GET", "HEAD"):
        yield "body", {"method": method, "body": b"x", "content_type": "text/plain"}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Acting]:
    async with acting(tmp_path) as service:
        yield service


class Sockets:
    """Counts who asks for a name and who connects, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        loop = asyncio.get_running_loop()
        for place, name in ((socket, "getaddrinfo"), (socket.socket, "connect"), (socket.socket, "connect_ex")):
            self._count(monkeypatch, place, name)
        for name in ("create_connection", "sock_connect", "getaddrinfo"):
            self._count(monkeypatch, type(loop), name)

    def _count(self, monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> None:
        real = getattr(place, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.seen.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(place, name, counted)


async def test_hundreds_of_hostile_requests_are_refused_by_their_field_and_open_no_socket(
    service: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = list(hostile())
    assert len(requests) >= 300
    await service.call()
    before = service.peer.connections, len(service.peer.received), len(await service.usage())
    with monkeypatch.context() as patched:
        sockets = Sockets(patched)
        for field, request in requests:
            refusal = await service.refusal(**request)
            assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT, request
            [(named, _)] = refusal.violations
            assert named.partition("[")[0] == field, request
        assert sockets.seen == []
    assert (service.peer.connections, len(service.peer.received), len(await service.usage())) == before


async def test_the_count_of_sockets_would_see_one(service: Acting, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        sockets = Sockets(patched)
        await service.call()
        assert sockets.seen != []


async def test_a_path_that_no_route_of_the_caller_matches_is_not_for_it(service: Acting) -> None:
    for method, path in (
        ("GET", "/2/users/12/followers"), ("DELETE", "/2/users/12"), ("GET", "/2/Users/me"), ("POST", "/2/tweets/1"),
        ("GET", "/1.1/statuses"), ("PUT", "/2/tweets"), ("GET", "/2/users"), ("HEAD", "/2/users/me"),
    ):  # fmt: skip
        refusal = await service.refusal(method=method, path=path)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_PERMITTED"), path
        assert refusal.facts == {"permission": "act", "field": "path"}
    assert service.peer.connections == 0


async def test_what_is_allowed_goes_out_with_one_of_each_header_that_is_ours(service: Acting) -> None:
    await service.post(
        headers=[Header(name="Accept-Language", value="de"), Header(name="If-Match", value='"1"')],
        query=[QueryParameter(name="a b", value="&=/?#ü"), QueryParameter(name="a b", value="")],
    )
    [sent] = service.peer.received
    head, _, body = sent.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    assert first == "POST /2/tweets?a%20b=%26%3D%2F%3F%23%C3%BC&a%20b= HTTP/1.1"
    sent_headers = sorted((name.lower(), value) for name, value in (line.split(": ", 1) for line in lines))
    assert sent_headers == sorted(
        {
            "host": service.peer.url.removeprefix("http://"),
            "authorization": f"Bearer {await service.token()}",
            "accept": "application/json",
            "accept-encoding": "gzip",
            "accept-language": "de",
            "if-match": '"1"',
            "content-type": "application/json",
            "content-length": str(len(body)),
            "user-agent": "synposter-accounts",
        }.items()
    )
    assert body == b'{"text":"hello"}'
