"""grpc.health.v1: SERVING while the store answers and the server is not draining."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from datetime import timedelta
from typing import Final, TypeAlias

from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)

from server.accounts.callers import Caller
from server.accounts.errors import RateLimited
from server.rpc.errors import ServiceNotServed

log = logging.getLogger(__name__)

PING_SECONDS: Final = 2.0
MOST_WATCHES: Final = 100
"""Anybody may watch, and as long as they like."""
WATCH_LATER: Final = timedelta(seconds=10)

Serving: TypeAlias = HealthCheckResponse.ServingStatus


class Health:
    """Check asks the store; Watch tells what the last probe found.

    All the services live and die together. `ping` returns while the store answers and raises otherwise.
    """

    def __init__(self, ping: Callable[[], Awaitable[None]], services: Collection[str]) -> None:
        self._ping = ping
        self._services = frozenset({"", *services})
        self._status: Serving = HealthCheckResponse.NOT_SERVING
        self._draining = False
        self._ended = False
        self._watches = 0
        self._changed = asyncio.Event()
        self._probing: asyncio.Task[None] | None = None

    async def Check(self, request: HealthCheckRequest, _caller: Caller) -> HealthCheckResponse:  # noqa: N802
        if request.service not in self._services:
            raise ServiceNotServed(f"{request.service!r} is not served here")
        await self.probe()
        return HealthCheckResponse(status=self._status)

    async def List(self, _request: HealthListRequest, _caller: Caller) -> HealthListResponse:  # noqa: N802
        await self.probe()
        now = HealthCheckResponse(status=self._status)
        return HealthListResponse(statuses=dict.fromkeys(self._services, now))

    async def Watch(self, request: HealthCheckRequest, _caller: Caller) -> AsyncIterator[HealthCheckResponse]:  # noqa: N802
        if self._watches >= MOST_WATCHES:
            raise RateLimited(f"{MOST_WATCHES} watch the health already; ask with Check", WATCH_LATER, limit="watches")
        self._watches += 1
        try:
            async for status in self._told(request):
                yield status
        finally:
            self._watches -= 1

    async def _told(self, request: HealthCheckRequest) -> AsyncIterator[HealthCheckResponse]:
        known = request.service in self._services
        told: Serving | None = None
        while True:
            changed = self._changed
            status = self._status if known else HealthCheckResponse.SERVICE_UNKNOWN
            if status != told:
                yield HealthCheckResponse(status=status)
                told = status
            if self._ended:
                return
            await changed.wait()

    async def probe(self) -> None:
        """Pings the store. Simultaneous probes share one ping: Check is open to all, the store is not."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe())
        await asyncio.shield(self._probing)

    def not_serving(self) -> None:
        """NOT_SERVING from now on, whatever the store says."""
        self._draining = True
        self._tell(HealthCheckResponse.NOT_SERVING)

    def end(self) -> None:
        """Ends the watches, which would otherwise hold up the server's stop for all its grace."""
        self.not_serving()
        self._ended = True
        self._wake()

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._ping()
            self._tell(HealthCheckResponse.SERVING)
        except Exception as error:
            if self._status == HealthCheckResponse.SERVING:
                log.warning("the store does not answer: not serving", exc_info=error)
            self._tell(HealthCheckResponse.NOT_SERVING)
        finally:
            self._probing = None

    def _tell(self, status: Serving) -> None:
        if self._draining:
            status = HealthCheckResponse.NOT_SERVING
        if status != self._status:
            self._status = status
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
