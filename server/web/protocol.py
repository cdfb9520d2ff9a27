"""The HTTP protocol under the callback: one request a connection, small limits, and no word too much.

aiohttp knows no deadline for a header, no size of a whole header and no number of connections: they are set here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from aiohttp import web
from aiohttp.web_request import BaseRequest

from server.accounts.flow import ResultPage
from server.web.pages import HEADERS, PAGES

log = logging.getLogger(__name__)

HEADER_SECONDS: Final = 5.0
"""From the connection's beginning to the header's end."""
MOST_CONNECTIONS: Final = 500
"""A process often has a thousand file descriptors, and platforms, callers and the database need theirs."""
BACKLOG: Final = 1024
"""A person whom the kernel has no room for comes again after a second."""
LONGEST_HEAD: Final = 16 * 1024
LONGEST_LINE: Final = 12 * 1024
"""More than the longest query that is read, so that a long one gets the page and not a bare refusal."""
LONGEST_HEADER: Final = 8 * 1024
MOST_HEADERS: Final = 64


class Crowd:
    """Who is connected. When it is too many, whoever has kept us waiting longest for a request makes room.

    So people, whose requests arrive whole and at once, come through while others hold as many connections as they can.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._silent: dict[QuietHandler, None] = {}
        self._served: set[QuietHandler] = set()

    def __len__(self) -> int:
        return len(self._silent) + len(self._served)

    def enter(self, newcomer: QuietHandler) -> None:
        self._silent[newcomer] = None
        if len(self) > self._most:
            longest = next(iter(self._silent))  # the newcomer itself, where all others are being served
            self.leave(longest)
            longest.turn_away()

    def serve(self, handler: QuietHandler) -> None:
        if handler in self._silent:
            del self._silent[handler]
            self._served.add(handler)

    def leave(self, handler: QuietHandler) -> None:
        self._silent.pop(handler, None)
        self._served.discard(handler)


class BareResponse(web.Response):
    """A response without aiohttp's banner, for requests that never reach the application and its signals."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.pop("Server", None)


class QuietHandler(web.RequestHandler):
    """One connection. aiohttp would log what it could not parse, which can hold a code, and sign its answer."""

    __slots__ = ("_crowd", "_refused", "_took")

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop, crowd: Crowd) -> None:
        super().__init__(
            manager,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # its stubs forget that None turns it off
            keepalive_timeout=HEADER_SECONDS,  # it counts from the connection's beginning, however much drips in
            lingering_time=0,  # a body is not waited for
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_HEADER,
            max_headers=MOST_HEADERS,
        )
        self._crowd = crowd
        self._took = 0
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._crowd.enter(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._crowd.leave(self)
        super().connection_lost(exc)

    def turn_away(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Reads one request: what follows it is dropped, so nothing can be piled up here."""
        if self._request_count or self._refused:
            return
        self._took += len(data)
        if self._took > LONGEST_HEAD:
            self._refuse()
            return
        super().data_received(data)
        if self._request_count:
            self._crowd.serve(self)

    def _refuse(self) -> None:
        """The rest is still taken until the deadline: a connection closed on unread bytes would swallow the answer."""
        log.debug("malformed http", extra={"status": 400, "why": "TooLong"})
        self._refused = True
        if self.transport is not None:
            self.transport.write(REFUSAL)
            self.transport.write_eof()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 (it quotes the request)
    ) -> web.StreamResponse:
        log.debug("malformed http", extra={"status": status, "why": type(exc).__name__})
        if request.writer.output_size > 0:
            raise ConnectionError("a response was under way")
        failed = PAGES[ResultPage.FAILED].body  # a query too long to be read is a person's all the same
        response = BareResponse(status=status, body=failed, content_type="text/html", charset="utf-8", headers=HEADERS)
        response.force_close()
        return response

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """aiohttp answers an unknown `Expect` before any middleware, and quotes it: only the status goes out."""
        if isinstance(resp, web.HTTPException):
            resp = web.Response(status=resp.status, text=f"{resp.status}\n")
        resp.force_close()
        return await super().finish_response(request, resp, start_time)


def refusal() -> bytes:
    """What is answered to a header that is too long to be read."""
    headers = {**HEADERS, "Content-Type": "text/html; charset=utf-8", "Connection": "close"}
    body = PAGES[ResultPage.FAILED].body
    lines = ["HTTP/1.1 400 Bad Request", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


REFUSAL: Final = refusal()


async def listen(runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
    """Serves the runner's application on an address. Raises OSError."""
    loop = asyncio.get_running_loop()
    manager: Any = runner.server
    crowd = Crowd(MOST_CONNECTIONS)
    return await loop.create_server(lambda: QuietHandler(manager, loop, crowd), host, port, backlog=BACKLOG)
