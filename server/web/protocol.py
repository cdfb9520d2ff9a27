"""The HTTP protocol under the callback: small limits, and no word too much for what is not even HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from aiohttp import web
from aiohttp.web_request import BaseRequest

from server.accounts.flow import ResultPage
from server.web.pages import HEADERS, PAGES

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS: Final = 10.0
LONGEST_LINE: Final = 12 * 1024
"""More than the longest query that is read, so that a long one gets the page and not a bare refusal."""
LONGEST_HEADER: Final = 8 * 1024
MOST_HEADERS: Final = 64


class BareResponse(web.Response):
    """A response without aiohttp's banner, for requests that never reach the application and its signals."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.pop("Server", None)


class QuietHandler(web.RequestHandler):
    """aiohttp would log what it could not parse, which can hold a code, and sign its answer."""

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            manager,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # its stubs forget that None turns it off
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_HEADER,
            max_headers=MOST_HEADERS,
        )

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 (it quotes the request)
    ) -> web.StreamResponse:
        log.info("malformed http", extra={"status": status, "why": type(exc).__name__})
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
        return await super().finish_response(request, resp, start_time)


async def listen(runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
    """Serves the runner's application on an address. Raises OSError."""
    loop = asyncio.get_running_loop()
    manager: Any = runner.server
    return await loop.create_server(lambda: QuietHandler(manager, loop), host, port)
