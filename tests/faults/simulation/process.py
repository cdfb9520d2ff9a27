"""One process of the service in a simulated world: the real domain over shared ports, and it can stop, die and return.

Every port call passes `Process.step`, where others may run and where this process may be paused or die.
"""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from server.accounts.blocks import Blocks
from server.accounts.connect import Connector
from server.accounts.exchange import Exchanger
from server.accounts.fresh import FreshTokens
from server.accounts.gate import Gate
from server.accounts.identity import IdentityReader
from server.accounts.read import Reader
from server.accounts.refresh import Refresher
from server.accounts.revoke import Revoker
from server.storage.journal import FileJournal
from server.storage.store import Store
from tests.accounts.script import Watcher
from tests.faults.simulation.database import gone
from tests.faults.simulation.ledger import Pair
from tests.faults.simulation.platform import SimulatedPlatform

if TYPE_CHECKING:
    from tests.faults.simulation.world import World

T = TypeVar("T")
log = logging.getLogger(__name__)

RUNNING: contextvars.ContextVar["Process"] = contextvars.ContextVar("running")
"""The process that a task belongs to, so that it dies with it."""

LEASE = timedelta(seconds=60)
MIN_INTERVAL = timedelta(minutes=1)
LONGEST_SLEEP = {"grants": 6 * 3600.0, "outbox": 6 * 3600.0, "requests": 600.0}
"""The sweep also ends what no alarm rings for: the stubs of grants whose refresh never came back."""


class ProcessEngine:
    """The shared database as one process reaches it: each call takes time, and the database may be away."""

    locks_rows = False

    def __init__(self, world: "World", process: "Process") -> None:
        self.database = world.engine.database
        self.clock = world.clock
        self._world = world
        self._process = process

    async def read(self, work: Callable[[Any], T]) -> T:
        await self._process.step()
        if self._world.database_is_away():
            raise gone()
        return await self._world.engine.read(work)

    async def write(self, work: Callable[[Any], T]) -> T:
        await self._process.step()
        self._world.perhaps_lose_database()
        if self._world.database_is_away() and not self._world.fate.happens(0.1):
            raise gone()
        result = self._world.commit(work)
        await self._process.step()
        if self._world.database_is_away():
            raise gone()  # it was committed, and nobody can say
        return result


class ProcessJournal(FileJournal):
    """The real journal on a disk that may be full."""

    world: "World"

    async def keep(self, refreshed: Any) -> None:
        await super().keep(refreshed)
        self.world.alarms["grants"].ring_at(self.world.loop.time() + 1)

    def _write(self, name: str, refreshed: Any) -> None:
        if self.world.fate.happens(self.world.fate.climate.full_disk):
            raise OSError(28, "No space left on device")
        super()._write(name, refreshed)


class Process:
    """One life of one process; the next one in its place has its journal folder and nothing else of it."""

    def __init__(self, world: "World", place: int, life: int) -> None:
        self.owner = f"process {place}.{life}"
        self.place = place
        self.alive = True
        self.paused_until = 0.0
        self.in_hand: list[Pair] = []
        """What it was given last, which may be nowhere else."""
        self.tasks: set[asyncio.Task[Any]] = set()
        self._world = world
        self._build(world.journal_folder(place))

    def _build(self, journal_folder: Path) -> None:
        world = self._world
        self.store = Store(ProcessEngine(world, self), world.vault, world.new_id)  # type: ignore[arg-type]
        platforms: dict[str, Any] = {"twitter": SimulatedPlatform(world, self)}
        gates = {"twitter": Gate(16, clock=world.loop.time)}
        reader = Reader(self.store, platforms)
        observer = Watcher()
        journal = ProcessJournal(journal_folder, world.vault, world.new_id)
        journal.world = world
        self.journal = journal
        self.exchanger = Exchanger(
            self.store, platforms, gates, Blocks(self.store), observer, world.new_id, min_interval=MIN_INTERVAL
        )
        self.connector = Connector(
            self.store, platforms, gates, self.exchanger, world.new_id, lambda name: f"https://accounts.test/{name}"
        )
        self.refresher = Refresher(
            self.store,
            platforms,
            gates,
            journal,
            observer,
            owner=self.owner,
            lease=LEASE,
            min_interval=MIN_INTERVAL,
        )
        self.fresh = FreshTokens(self.store, reader, self.refresher, gates)
        self.identities = IdentityReader(self.store, platforms, gates)
        self.revoker = Revoker(self.store, reader, platforms, gates, observer)

    def start(self) -> None:
        self.spawn(self._serve())

    async def drain(self) -> None:
        """As the composition root does on SIGTERM: claims nothing more and ends what was begun."""
        for worker in (self.refresher, self.identities, self.revoker):
            worker.stop()
        await self.refresher.settled()
        await self.revoker.drain()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that dies with this process, as do all that it starts."""
        context = contextvars.copy_context()
        context.run(RUNNING.set, self)
        return self._world.loop.create_task(work, context=context)

    async def step(self) -> None:
        """A moment passes; whether there is a next one for this process is fate's to say."""
        fate = self._world.fate
        await self.moment()
        if fate.happens(fate.climate.pauses):
            pause = fate.pause()
            self.paused_until = self._world.loop.time() + pause
            self._world.judge.note(f"{self.owner} is paused for {pause:.0f} s")
        await asyncio.sleep(max(0.0, self.paused_until - self._world.loop.time()))
        if fate.happens(fate.climate.crashes):
            self._world.crash(self)
        self._check()

    async def moment(self) -> None:
        """Between its last look at its lease and its request a process may die, but not stand still.

        It might in truth; nothing that a process can do closes that window.
        """
        self._check()
        await asyncio.sleep(self._world.fate.step())
        self._check()

    def _check(self) -> None:
        if not self.alive:
            raise asyncio.CancelledError

    def take(self, pair: Pair) -> None:
        pair.holder = asyncio.current_task()
        self.in_hand = [*self.in_hand[-63:], pair]

    async def _serve(self) -> None:
        """As the composition root does: replay, free what a dead process left if that is certain, then the jobs."""
        await self._job("start", 0, self._begin)
        world = self._world
        self.spawn(self._every("grants", 1, lambda: self.refresher.work_off("twitter")))
        self.spawn(self._every("grants", 2, lambda: self.identities.work_off("twitter")))
        self.spawn(self._every("outbox", 1, lambda: self.revoker.work_off("twitter")))
        if self.place == 0:
            self.spawn(self._every("requests", 5, lambda: self.store.sweep_requests(limit=500)))
        world.judge.note(f"{self.owner} serves")

    async def _begin(self) -> int:
        await self.refresher.replay()
        if self._world.fate.climate.processes == 1:
            await self.store.free_dead_leases()
        return 1

    async def _every(self, kind: str, seconds: float, work: Callable[[], Awaitable[int]]) -> None:
        """A job of the calendar; it sleeps through what would find nothing, and longer each time it does nothing."""
        world, idle = self._world, 0
        while True:
            idle = 0 if await self._job(kind, idle, work) else min(idle + 1, 6)
            now = world.loop.time()
            wait = seconds * 2**idle if self.journal.depth == 0 else seconds
            await world.alarms[kind].sleep_until(max(now + wait, min(world.next_due(kind), now + LONGEST_SLEEP[kind])))

    async def _job(self, kind: str, idle: int, work: Callable[[], Awaitable[int]]) -> int:
        try:
            return await work()
        except Exception as error:
            log.info("a job failed", extra={"job": kind, "why": repr(error)})
            return 0


def remember_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: contextvars.Context | None = None
) -> asyncio.Task[Any]:
    """The loop's task factory: a task belongs to the process that started it."""
    task = asyncio.Task(work, loop=loop, context=context)
    process = (context or contextvars.copy_context()).get(RUNNING)
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
    return task
