"""Requests over real sockets: what was sent, what was not, and what plays no part."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.accounts.errors import GrantDead, NotSent, OurFault, OutcomeUnknown, PlatformError, PlatformRefused
from server.accounts.model import Endpoints, Secret, TokenSet
from server.platforms.http import LARGEST_REPLY, Sender
from server.platforms.messages import HttpRequest
from server.platforms.platform import RegisteredPlatform
from server.platforms.registration import Registration
from server.platforms.twitter import TWITTER

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LIMIT = timedelta(seconds=2)
GOOD = b'{"token_type":"bearer","access_token":"at-canary","refresh_token":"rt-canary","expires_in":7200}'


class Peer:
    """A raw HTTP peer that keeps what it received."""

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[bytes] = []

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0
        )
        self.heads.append(head + await reader.readexactly(length))
        return head


@asynccontextmanager
async def peer(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Peer]:
    found = Peer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await found.read_request(reader)
                await answer(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()


def http(body: bytes = GOOD, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def says(data: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


async def resets(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def hangs(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drips_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def drips_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def floods(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


def platform(port: int, sender: Sender, limit: timedelta = LIMIT) -> RegisteredPlatform:
    base = f"http://127.0.0.1:{port}"
    overrides = {
        "token_endpoint": f"{base}/token",
        "revocation_endpoint": f"{base}/revoke",
        "identity_endpoint": f"{base}/me",
    }
    registration = Registration("id", Secret("client-secret-canary"), overrides)
    return RegisteredPlatform(TWITTER, registration, sender, lambda: datetime.now(UTC), token_timeout=limit)


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    sender = Sender()
    yield sender
    await sender.close()


@pytest.fixture(autouse=True)
def insecure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


HELD = TokenSet(Secret("at-held-canary"), Secret("rt-held-canary"), None, ("users.read",))


async def refresh(port: int, sender: Sender) -> TokenSet:
    return await platform(port, sender).refresh(HELD)


async def exchange(port: int, sender: Sender) -> TokenSet:
    speaks = platform(port, sender)
    endpoints: Endpoints = speaks.endpoints
    return await speaks.exchange(
        endpoints=endpoints,
        code=Secret("code-canary"),
        code_verifier=Secret("v" * 43),
        redirect_uri="https://accounts.test/oauth/callback/twitter",
        scopes=("users.read",),
    )


Send = Callable[[int, Sender], Awaitable[TokenSet]]
both = pytest.mark.parametrize("send", [refresh, exchange], ids=["refresh", "exchange"])


@both
async def test_a_good_answer_is_read(send: Send, sender: Sender) -> None:
    async with peer(says(http())) as found:
        assert (await send(found.port, sender)).access_token == Secret("at-canary")
        assert len(found.heads) == 1
        assert b"authorization: basic " in found.heads[0].lower()


@both
async def test_a_port_where_nobody_listens_was_not_sent_to(send: Send, sender: Sender) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(NotSent):
            await send(taken.getsockname()[1], sender)


@both
@pytest.mark.parametrize("answer", [resets, hangs, drips_headers, drips_body, floods], ids=lambda each: each.__name__)
async def test_no_readable_answer_after_sending_is_unknown_and_ends_in_time(
    send: Send, answer: Callable[[asyncio.StreamWriter], Awaitable[None]], sender: Sender
) -> None:
    async with peer(answer) as found:
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            await send(found.port, sender)
        assert time.monotonic() - began < 2 * LIMIT.total_seconds()
        assert len(found.heads) == 1


@both
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_never_followed(send: Send, status: str, sender: Sender) -> None:
    async with peer(says(http())) as elsewhere:
        location = f"Location: http://127.0.0.1:{elsewhere.port}/token"
        async with peer(says(http(b"", status, location))) as found:
            with pytest.raises(OurFault):
                await send(found.port, sender)
            assert len(found.heads) == 1
        assert elsewhere.heads == []


@both
@pytest.mark.parametrize(
    ("body", "status", "meaning"),
    [
        (b'{"error":"invalid_grant"}', "400 Bad Request", GrantDead),
        (b"busy", "503 Busy", OutcomeUnknown),
        (b"{}", "429 Slow Down", PlatformRefused),
        (b"<html>", "200 OK", OutcomeUnknown),
        (b'{"error":"invalid_client"}', "401 Unauthorized", OurFault),
    ],
    ids=["dead", "503", "429", "html", "invalid_client"],
)
async def test_both_ways_read_an_answer_alike(
    send: Send, body: bytes, status: str, meaning: type[PlatformError], sender: Sender
) -> None:
    async with peer(says(http(body, status))) as found:
        with pytest.raises(PlatformError) as caught:
            await send(found.port, sender)
    assert type(caught.value) is meaning


@both
async def test_the_environment_plays_no_part(
    send: Send, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with peer(says(http())) as proxy, peer(says(http(GOOD, "200 OK", "Set-Cookie: a=b; Path=/"))) as found:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login evil password evil\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        for _ in range(2):
            await send(found.port, sender)
        assert proxy.heads == []
        assert all(head.lower().count(b"authorization:") == 1 and b"ZXZpb" not in head for head in found.heads)
        assert all(b"cookie" not in head.lower() for head in found.heads)


async def test_a_cookie_is_never_sent_back(sender: Sender) -> None:
    async with peer(says(http(b"{}", "200 OK", "Set-Cookie: session=canary; Path=/"))) as found:
        for _ in range(2):
            # By name: the default jar keeps no cookies of addresses.
            await sender.send(HttpRequest("GET", f"http://localhost:{found.port}/", {}), LIMIT)
    assert len(found.heads) == 2 and all(b"cookie" not in head.lower() for head in found.heads)


async def test_a_request_on_a_connection_that_went_stale_is_not_sent_twice(sender: Sender) -> None:
    answers = [says(http()), resets]

    async def answer(writer: asyncio.StreamWriter) -> None:
        await answers.pop(0)(writer)

    async with peer(answer) as found:
        await refresh(found.port, sender)
        with pytest.raises(OutcomeUnknown):
            await refresh(found.port, sender)
        assert len(found.heads) == 2


async def test_an_answer_that_is_cut_off_keeps_what_arrived(sender: Sender) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + GOOD

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(cut)
        await writer.drain()
        writer.close()

    async with peer(answer) as found:
        with pytest.raises(OutcomeUnknown) as caught:
            await refresh(found.port, sender)
    assert caught.value.reply == GOOD


async def test_a_bomb_that_unpacks_to_much_is_cut_off(sender: Sender) -> None:
    import gzip

    bomb = gzip.compress(b" " * (64 * 1024 * 1024))
    assert len(bomb) < 2 * LARGEST_REPLY
    async with peer(says(http(bomb, "200 OK", "Content-Encoding: gzip"))) as found:
        with pytest.raises(OutcomeUnknown):
            await sender.send(HttpRequest("GET", f"http://127.0.0.1:{found.port}/", {}), LIMIT)


@both
async def test_nothing_secret_is_logged_at_debug(send: Send, sender: Sender, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        async with peer(says(http())) as found:
            await send(found.port, sender)
    assert all("canary" not in str(record.__dict__) for record in caplog.records)


def test_an_authorization_url_has_a_fresh_challenge_and_the_state() -> None:
    from urllib.parse import parse_qs, urlsplit

    speaks = platform(1, Sender())
    url = speaks.authorization_url(
        redirect_uri="https://accounts.test/oauth/callback/twitter",
        scopes=("users.read", "tweet.read"),
        state=Secret("state-1"),
        # RFC 7636 appendix B
        code_verifier=Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
    )
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert url.startswith("https://x.com/i/oauth2/authorize?")
    assert query == {
        "response_type": "code",
        "client_id": "id",
        "redirect_uri": "https://accounts.test/oauth/callback/twitter",
        "scope": "users.read tweet.read",
        "state": "state-1",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
