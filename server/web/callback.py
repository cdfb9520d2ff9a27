"""The shim: `GET /oauth/callback/{platform}` and `GET /healthz` on a port of their own, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from aiohttp import web
from aiohttp.typedefs import Handler

from server.accounts.audit import ORIGIN, Origin
from server.accounts.errors import StoreUnavailable
from server.accounts.flow import AuthorizationResponse, ResultPage, SendBrowser, ShowPage
from server.web import query
from server.web.pages import HEADERS, PAGES
from server.web.protocol import listen

log = logging.getLogger(__name__)

BROWSER = Origin(peer="browser")
"""Of a browser no more is recorded: its address would be personal data."""

Answer = Callable[[str, AuthorizationResponse], Awaitable[ShowPage | SendBrowser]]


class CallbackServer:
    """Serves browsers. `answer` is the domain's callback; `healthy` returns True or raises while the store is away.

    `grace` is how long requests under way may take when it stops.
    """

    def __init__(self, answer: Answer, healthy: Callable[[], Awaitable[bool]], grace: timedelta) -> None:
        self._answer = answer
        self._healthy = healthy
        app = web.Application(middlewares=[strict], client_max_size=1024)
        # add_get would answer HEAD with the same handler: a link scanner would use the state up.
        app.router.add_get("/oauth/callback/{platform}", self._callback, allow_head=False)
        app.router.add_get("/healthz", self._health, allow_head=False)
        app.on_response_prepare.append(harden)
        # aiohttp waits for this long twice: for the handler, and then for the connection's own task.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=grace.total_seconds() / 2)
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; the port (0: any free one). Raises OSError if it cannot."""
        await self._runner.setup()
        self._server = await listen(self._runner, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Takes no new requests and lets those under way end within the grace."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    async def _callback(self, request: web.Request) -> web.StreamResponse:
        try:
            response = query.read(request.raw_path.partition("?")[2].encode("utf-8", "surrogateescape"))
        except query.BadQuery:
            return page(ResultPage.FAILED)
        ORIGIN.set(lambda: BROWSER)
        result = await self._answer(request.match_info["platform"], response)
        if isinstance(result, SendBrowser):
            return web.Response(status=303, headers={"Location": result.url})
        return page(result.page)

    async def _health(self, _: web.Request) -> web.StreamResponse:
        try:
            healthy = await self._healthy()
        except StoreUnavailable:
            healthy = False
        return web.Response(
            status=200 if healthy else 503, text="ok\n" if healthy else "the database does not answer\n"
        )


@web.middleware
async def strict(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One log line without the query; a page for whatever goes wrong."""
    began = time.perf_counter()
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = web.Response(status=error.status, text=f"{error.status}\n")
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except StoreUnavailable:
        response = page(ResultPage.FAILED, 503)
    except Exception:
        log.exception("the callback failed")
        response = page(ResultPage.FAILED, 500)
    route = request.match_info.route.resource
    log.log(
        logging.DEBUG if request.path == "/healthz" else logging.INFO,  # it is asked every few seconds
        "http",
        extra={
            "method": request.method,
            "route": route.canonical if route else "",
            "status": response.status,
            "duration": round(time.perf_counter() - began, 4),
        },
    )
    return response


async def harden(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    response.headers.pop("Server", None)


def page(which: ResultPage, status: int | None = None) -> web.Response:
    shown = PAGES[which]
    return web.Response(status=status or shown.status, body=shown.body, content_type="text/html", charset="utf-8")
