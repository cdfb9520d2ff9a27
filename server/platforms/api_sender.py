"""Sends calls on accounts' behalf: one session for each platform, with connections of its own, apart from refreshes.

Nothing is sent twice, nothing follows a redirect, nothing is taken from the environment, and what comes back is
unpacked here, so that 10 GB in a few kilobytes cost no more than the largest answer that is passed on.
"""

from __future__ import annotations

import asyncio
import zlib
from datetime import timedelta

import aiohttp

from server.accounts.calls import LARGEST_BODY, AnswerWithheld
from server.accounts.errors import NotSent, OutcomeUnknown
from server.accounts.model import Secret
from server.platforms.api import ApiRequest
from server.platforms.connection import connector, is_final
from server.platforms.http import IDLE_SECONDS, NEVER_SENT, AnswerLimit, connect_timeout, tls
from server.platforms.messages import HttpReply

READ_SIZE = 64 * 1024
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class ApiSender:
    """As many connections as there may be calls in flight: none waits for another's."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: ApiRequest, token: Secret, limit: timedelta) -> HttpReply:
        """The reply, unpacked, within `limit`. Raises NotSent, OutcomeUnknown, AnswerWithheld."""
        try:
            with AnswerLimit(limit):
                async with self._opened().request(
                    request.method,
                    request.url,
                    headers={**request.headers, "authorization": f"Bearer {token.reveal()}"},
                    data=request.body or None,
                    allow_redirects=False,
                    timeout=connect_timeout(limit),
                ) as response:
                    if not is_final(response.status):
                        response.close()
                        raise OutcomeUnknown(f"no answer: status {response.status}", status=response.status)
                    headers = {name.lower(): value for name, value in response.headers.items()}
                    return HttpReply(response.status, await unpacked(response), headers)
        except NEVER_SENT as error:
            raise NotSent(f"not sent: {type(error).__name__}") from None
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            raise OutcomeUnknown(f"no answer: {type(error).__name__}") from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = session(self._connections)
        return self._session


def session(connections: int) -> aiohttp.ClientSession:
    """A session that sends each request once, with nothing from the environment, but who we are and what we unpack."""
    made = aiohttp.ClientSession(
        connector=connector(limit=connections, keepalive_timeout=IDLE_SECONDS, ssl=tls()),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        headers={"user-agent": "synposter-accounts", "accept-encoding": "gzip"},
        skip_auto_headers=("content-type",),
    )
    # aiohttp sends PUT and DELETE again by itself when a connection that was kept turns out to be closed,
    # though the first may have been carried out. It has no public switch; its own test client uses this one.
    made._retry_connection = False
    return made


async def unpacked(response: aiohttp.ClientResponse) -> bytes:
    """The body, unpacked, of at most LARGEST_BODY bytes. Raises AnswerWithheld, and what aiohttp raises."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate", ""):
        raise AnswerWithheld(response.status, "encoding")
    unpacker = None if encoding in ("identity", "") else zlib.decompressobj(GZIP_OR_ZLIB)
    body = bytearray()
    while not response.content.at_eof():
        chunk = await response.content.read(READ_SIZE)
        try:
            body += chunk if unpacker is None else unpacker.decompress(chunk, LARGEST_BODY + 1 - len(body))
        except zlib.error:
            raise AnswerWithheld(response.status, "encoding") from None
        if unpacker is not None and unpacker.unused_data:  # it would grow with whatever follows
            raise AnswerWithheld(response.status, "encoding")
        if len(body) > LARGEST_BODY:
            raise AnswerWithheld(response.status, "too_large")
    if unpacker is not None and body and not unpacker.eof:
        raise OutcomeUnknown("the answer was cut off", status=response.status)
    return bytes(body)
