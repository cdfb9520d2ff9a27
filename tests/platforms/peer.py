"""A raw HTTP peer on loopback that answers as it is told and keeps what it received."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from server.accounts.grants import TokenSet
from server.accounts.model import Secret
from server.platforms.definition import OAuth2Platform
from server.platforms.http import Sender
from server.platforms.platform import RegisteredPlatform
from server.platforms.registration import Registration
from server.platforms.twitter import TWITTER

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]

LIMIT = timedelta(seconds=10)
GOOD = b'{"token_type":"bearer","access_token":"at-canary","refresh_token":"rt-canary","expires_in":7200}'
HELD = TokenSet(Secret("at-held-canary"), Secret("rt-held-canary"), None, ("users.read",))
REDIRECT_URI = "https://accounts.test/oauth/callback/twitter"


class Peer:
    """`received` holds each request whole; `connections` counts also those on which none came."""

    def __init__(self, answer: Answer) -> None:
        self.url = ""
        self.answer = answer
        self.received: list[bytes] = []
        self.connections = 0

    async def read_request(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        self.received.append(head + await reader.readexactly(int(lengths[0]) if lengths else 0))


@asynccontextmanager
async def peer(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    found = Peer(answer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        try:
            while True:
                await found.read_request(reader)
                await found.answer(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    found.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


def http(body: bytes = GOOD, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def says(data: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


async def resets(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def hangs(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drips_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await drip(writer, b"X: y\r\n")


async def drips_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    await drip(writer, b" ")


async def floods(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


async def drip(writer: asyncio.StreamWriter, drop: bytes) -> None:
    """Without end, and faster than any time limit of a single read."""
    while True:
        writer.write(drop)
        await writer.drain()
        await asyncio.sleep(0.05)


def registered(
    url: str,
    sender: Sender,
    limit: timedelta = LIMIT,
    definition: OAuth2Platform = TWITTER,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RegisteredPlatform:
    overrides = {
        "token_endpoint": f"{url}/token",
        "revocation_endpoint": f"{url}/revoke",
        "identity_endpoint": f"{url}/me",
    }
    registration = Registration("client:id", Secret("client-secret-canary+/"), overrides)
    return RegisteredPlatform(definition, registration, sender, now, token_timeout=limit)


async def refresh(platform: RegisteredPlatform) -> TokenSet:
    return await platform.refresh(HELD)


async def exchange(platform: RegisteredPlatform) -> TokenSet:
    return await platform.exchange(
        endpoints=platform.endpoints,
        code=Secret("code-canary"),
        code_verifier=Secret("verifier-canary-" + "v" * 43),
        redirect_uri=REDIRECT_URI,
        scopes=("users.read",),
    )
