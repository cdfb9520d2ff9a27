"""What the APIs that the sandbox plays have in common: a record of each request, faults on command, live tokens."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from sandbox.faults import Faults
from sandbox.ledger import Grant, Ledger
from sandbox.x import bearer

Serve = Callable[[web.Request, Grant], Awaitable[web.Response]]


class Api(ABC):
    """Endpoints that apps call for users. `log` records each request that reached one of them."""

    def __init__(self, ledger: Ledger, faults: Faults, log: list[dict[str, Any]]) -> None:
        self._ledger = ledger
        self._faults = faults
        self._log = log

    def serving(self, place: str, scopes: tuple[str, ...], serve: Serve) -> Callable[..., Awaitable[Any]]:
        """The endpoint: notes the request, carries out a fault, and lets in who may come."""

        async def handle(request: web.Request) -> web.StreamResponse:
            fault = self._faults.take(place)
            grant = self._ledger.known(bearer(request))
            noted = {
                "time": time.time(), "endpoint": place, "outcome": "received", "method": request.method,
                "path": request.path, "fault": fault and fault.fault, "grant_id": grant and grant.id,
            }  # fmt: skip
            self._log.append(noted)

            async def act() -> web.Response:
                response = await self.admitted(request, place, scopes, serve)
                noted["outcome"] = str(response.status)
                return response

            return await self._faults.carry_out(fault, request, act)

        return handle

    @abstractmethod
    async def admitted(self, request: web.Request, place: str, scopes: tuple[str, ...], serve: Serve) -> web.Response:
        """Serves whoever brings a live token with these scopes, and refuses all others in the platform's words."""


async def json_object(request: web.Request) -> dict[str, Any]:
    """The body; empty where it is no JSON object."""
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
