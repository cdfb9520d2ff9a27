"""The calendar: `schedule` decides when a job runs, the domain decides what it does.

`schedule` reads naive local time, so the process runs in TZ=UTC; when wall clock and monotonic clock part by more than
five seconds, the calendar is planned anew, so a jump neither skips jobs nor runs a storm of missed ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import schedule

from server.accounts.errors import StoreUnavailable

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[Any]]
TICK_SECONDS = 0.25
JUMP_SECONDS = 5.0


class Calendar:
    """Runs each job at its times, one run of a job at a time; a failing run is logged and the next one comes."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._scheduler = schedule.Scheduler()
        self._jobs: list[tuple[str, int, Work]] = []
        self._running: dict[str, asyncio.Task[None]] = {}
        self._wall = wall
        self._monotonic = monotonic
        self._drift = wall() - monotonic()
        self._loop: asyncio.Task[None] | None = None

    def every(self, seconds: int, name: str, work: Work) -> None:
        """Adds a job; it first runs at the start."""
        self._jobs.append((name, seconds, work))
        self._plan(name, seconds, work)

    def run_pending(self) -> None:
        """Starts what is due; skips a job whose last run has not ended."""
        drift = self._wall() - self._monotonic()
        if abs(drift - self._drift) > JUMP_SECONDS:
            log.warning("the clock jumped; the calendar is planned anew", extra={"seconds": round(drift - self._drift)})
            self._drift = drift
            self._scheduler.clear()
            for job in self._jobs:
                self._plan(*job)
        self._scheduler.run_pending()

    def start(self) -> None:
        """Runs every job now, and then at its times: a process that is killed after a second has done something."""
        self._scheduler.run_all()
        self._loop = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Starts nothing more and waits for the runs under way."""
        if self._loop is not None:
            self._loop.cancel()
        await self.settled()

    async def settled(self) -> None:
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            try:
                self.run_pending()
            except Exception:
                log.exception("the calendar failed; it goes on")
            await asyncio.sleep(TICK_SECONDS)

    def _plan(self, name: str, seconds: int, work: Work) -> None:
        self._scheduler.every(seconds).seconds.do(self._begin, name, work)

    def _begin(self, name: str, work: Work) -> None:
        if name not in self._running:
            task = asyncio.get_running_loop().create_task(self._run(name, work))
            self._running[name] = task

    async def _run(self, name: str, work: Work) -> None:
        try:
            await work()
        except StoreUnavailable as error:
            log.warning("a job waits for the database", extra={"job": name, "why": error.text})
        except Exception:
            log.exception("a job failed", extra={"job": name})
        finally:
            del self._running[name]
