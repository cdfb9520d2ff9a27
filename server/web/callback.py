"""The shim: `GET /oauth/callback/<platform>` and `GET /healthz` on a port of their own, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from server.accounts.audit import ORIGIN, Origin
from server.accounts.errors import StoreUnavailable
from server.accounts.flow import AuthorizationResponse, ResultPage, SendBrowser, ShowPage
from server.accounts.limits import Pace
from server.web import query
from server.web.pages import BUSY, HEADERS, PAGES, Page
from server.web.protocol import listen

log = logging.getLogger(__name__)

BROWSER = Origin(peer="browser")
"""Of a browser no more is recorded: its address would be personal data."""

CALLBACKS_A_SECOND: Final = 500.0
"""Of all browsers together, in this process: the calls and refreshes that share it must not feel a flood."""
HEALTH_CHECKS_A_SECOND: Final = 10.0

Answer = Callable[[str, AuthorizationResponse], Awaitable[ShowPage | SendBrowser]]


class CallbackServer:
    """Serves browsers. `answer` is the domain's callback; `healthy` returns True or raises while the store is away.

    `platforms` are the registered ones: no other has a path here. `grace` is how long requests under way may take when
    it stops.
    """

    def __init__(
        self,
        answer: Answer,
        healthy: Callable[[], Awaitable[bool]],
        grace: timedelta,
        *,
        platforms: Iterable[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answer = answer
        self._healthy = healthy
        self._callbacks = Pace(CALLBACKS_A_SECOND, clock)
        self._health_checks = Pace(HEALTH_CHECKS_A_SECOND, clock)
        self._was_healthy = False
        app = web.Application(middlewares=[strict], client_max_size=1024)
        # add_get would answer HEAD with the same handler: a link scanner would use the state up.
        for platform in platforms:
            app.router.add_get(f"/oauth/callback/{platform}", partial(self._callback, platform), allow_head=False)
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

    async def _callback(self, platform: str, request: web.Request) -> web.StreamResponse:
        if self._callbacks.take() > 0:
            return busy()
        try:
            response = query.read(request.raw_path.partition("?")[2].encode("utf-8", "surrogateescape"))
        except query.BadQuery:
            return page(ResultPage.FAILED)
        ORIGIN.set(lambda: BROWSER)
        result = await self._answer(platform, response)
        if isinstance(result, SendBrowser):
            return web.Response(status=303, headers={"Location": result.url})
        return page(result.page)

    async def _health(self, _: web.Request) -> web.StreamResponse:
        """Asked more often than it asks the database, it repeats the last answer."""
        if self._health_checks.take() == 0:
            self._was_healthy = await self._ask()
        if self._was_healthy:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the database does not answer\n")

    async def _ask(self) -> bool:
        try:
            return await self._healthy()
        except StoreUnavailable:
            return False


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
    # What comes as often as anybody likes fills no log: health checks, crawlers, what is beyond the rate.
    counts = route is not None and request.path != "/healthz" and "Retry-After" not in response.headers
    log.log(
        logging.INFO if counts else logging.DEBUG,
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
    return shown(PAGES[which], status)


def busy() -> web.Response:
    """Nothing was read or used up, so the browser can simply come again, and does."""
    response = shown(BUSY)
    response.headers.update({"Refresh": "1", "Retry-After": "1"})
    return response


def shown(what: Page, status: int | None = None) -> web.Response:
    return web.Response(status=status or what.status, body=what.body, content_type="text/html", charset="utf-8")
