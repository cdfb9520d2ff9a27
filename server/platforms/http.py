"""Sends requests to platforms over one aiohttp session; tells what was provably not sent from what may have been."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from functools import lru_cache

import aiohttp
import certifi

from server.accounts.errors import NotSent, OutcomeUnknown
from server.accounts.time_limit import TimeLimit
from server.platforms.connection import connector
from server.platforms.messages import HttpReply, HttpRequest

LARGEST_REPLY = 64 * 1024
READ_SIZE = 16 * 1024
CONNECT_SECONDS = 5.0
LAST_LOOK_SECONDS = 0.25
IDLE_SECONDS = 10.0
CONNECTIONS_OF_HOST = 256
"""More than may be under way of all kinds, which have their own bounds: a host that hangs takes no other's."""

NEVER_SENT = (
    aiohttp.ClientConnectorError,  # DNS, refused, TLS
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)


def connect_timeout(limit: timedelta) -> aiohttp.ClientTimeout:
    """How long connecting may take: less than the whole, so that what was not sent is known not to be."""
    return connect_timeout_of(min(CONNECT_SECONDS, limit.total_seconds() / 2))


@lru_cache
def connect_timeout_of(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=seconds)


class AnswerLimit(TimeLimit):
    """A time limit in two steps, between which the sockets are read. Raises TimeoutError.

    A process that was stopped and goes on runs its late timers before it reads its sockets (epoll_wait fails with
    EINTR): in one step they would throw away an answer that came meanwhile, which may hold the only live token.
    """

    __slots__ = ()

    def __init__(self, limit: timedelta) -> None:
        super().__init__(limit.total_seconds(), TimeoutError())

    def _begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.TimerHandle:
        last_look = min(LAST_LOOK_SECONDS, self._seconds / 2)
        return loop.call_later(self._seconds - last_look, self._look_last, loop, last_look)

    def _look_last(self, loop: asyncio.AbstractEventLoop, last_look: float) -> None:
        self._timer = loop.call_later(last_look, self._cut_off)


def tls() -> ssl.SSLContext:
    """Whom we believe: the authorities of certifi, as requests does. SSL_CERT_FILE and its like play no part."""
    context = tls_alone()
    context.load_verify_locations(certifi.where())
    return context


def tls_alone() -> ssl.SSLContext:
    """As `tls`, before there is anybody to believe.

    Python's own default would write the keys of each connection, and with them our tokens, into SSLKEYLOGFILE.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Sender:
    """One session for all platforms. No cookies (the default jar sends one account's with another's request), no
    redirects, no environment: `.netrc` and proxy variables play no part."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: HttpRequest, limit: timedelta) -> HttpReply:
        """The reply, whatever its status, within `limit`. Raises NotSent, or OutcomeUnknown with what arrived."""
        received, status = bytearray(), None
        try:
            with AnswerLimit(limit):
                async with self._opened().request(
                    request.method,
                    request.url,
                    headers=request.headers,
                    data=request.body or None,
                    allow_redirects=False,
                    timeout=connect_timeout(limit),
                ) as response:
                    status = response.status
                    while chunk := await response.content.read(READ_SIZE):
                        received += chunk
                        if len(received) > LARGEST_REPLY:
                            raise OutcomeUnknown("the reply is too large", status=status, reply=bytes(received))
                    headers = {name.lower(): value for name, value in response.headers.items()}
                    return HttpReply(status, bytes(received), headers)
        except NEVER_SENT as error:
            raise NotSent(f"not sent: {type(error).__name__}") from None
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            why = f"no answer: {type(error).__name__}"
            raise OutcomeUnknown(why, status=status, reply=bytes(received)) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=connector(
                    limit=0, limit_per_host=CONNECTIONS_OF_HOST, keepalive_timeout=IDLE_SECONDS, ssl=tls()
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                headers={"user-agent": "synposter-accounts"},
            )
        return self._session
