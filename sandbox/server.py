"""Puts the sandbox together and serves it, on loopback alone."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from sandbox.control_api import ControlApi
from sandbox.faults import Faults
from sandbox.ledger import Ledger
from sandbox.linkedin import LinkedIn
from sandbox.linkedin_api import LinkedInApi
from sandbox.x import X
from sandbox.x_api import XApi

LARGEST_REQUEST = 16 * 1024 * 1024


class NotLoopback(Exception):
    """A sandbox is for this machine only."""


@dataclass
class Sandbox:
    """A running sandbox."""

    ledger: Ledger = field(default_factory=Ledger)
    url: str = ""


def make_app(ledger: Ledger) -> web.Application:
    faults = Faults()
    log: list[dict[str, Any]] = []
    app = web.Application(client_max_size=LARGEST_REQUEST)
    for part in (X, XApi, LinkedIn, LinkedInApi):
        app.add_routes(part(ledger, faults, log).routes())
    app.add_routes(ControlApi(ledger, faults, log).routes())

    async def end_connection(request: web.Request, response: web.StreamResponse) -> None:
        if not ledger.settings.keep_alive and not request.path.startswith("/control/"):
            response.headers["Connection"] = "close"
            response.force_close()

    app.on_response_prepare.append(end_connection)
    return app


def is_loopback(host: str) -> bool:
    """A name other than localhost is none: where it leads is for a resolver to say."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.asynccontextmanager
async def running(host: str = "127.0.0.1", port: int = 0, ledger: Ledger | None = None) -> AsyncIterator[Sandbox]:
    """Serves until the block ends. Raises NotLoopback, OSError."""
    if not is_loopback(host):
        raise NotLoopback(f"{host} is not a loopback address; the sandbox serves this machine only")
    sandbox = Sandbox(ledger or Ledger())
    runner = web.AppRunner(make_app(sandbox.ledger), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    sandbox.url = f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}"
    try:
        yield sandbox
    finally:
        await runner.cleanup()
