"""A world: a shared database, a platform, some processes, users and callers, and all that can befall them.

`live` runs it: a wild part in which fate strikes, then a calm one after which everything must have come to rest.
"""

import asyncio
import dataclasses
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from server.accounts.grants import GrantState
from server.storage.schema import AccountRow, GrantRow, RevocationRow
from server.storage.store import Store
from server.storage.vault import Vault
from tests.accounts.script import RULES
from tests.faults.simulation.database import Disk, SimulatedEngine
from tests.faults.simulation.fate import GRACE, Fate, Replay
from tests.faults.simulation.judge import Judge
from tests.faults.simulation.ledger import Ledger
from tests.faults.simulation.people import act_for_callers, connect_everybody, revoke_at_the_platform
from tests.faults.simulation.platform import Weather
from tests.faults.simulation.process import Process, remember_task
from tests.faults.simulation.virtual_time import START_US, Alarm, VirtualClock, VirtualLoop
from tests.moulds import cast_ring, cast_sqlite

T = TypeVar("T")

CALM = timedelta(hours=4)
"""What may pass, beyond a life of an access token, before everything has come to rest: backoffs, leases, retries."""

DRAIN_SECONDS = 60.0
NEVER = 1e12

NEXT_DUE = {
    "grants": "SELECT min(min(coalesce(due_time, 9e18), coalesce(identity_due_time, 9e18))) FROM grants",
    "outbox": "SELECT min(due_time) FROM revocations",
    "requests": "SELECT min(sweep_time) FROM authorization_requests",
}


@dataclasses.dataclass
class Outcome:
    """What a world came to."""

    seed: int
    objections: list[str]
    counts: dict[str, int]
    account_years: float
    refreshes: int
    chronicle: list[tuple[float, str, str]]


class World:
    def __init__(self, seed: int, folder: Path, loop: VirtualLoop) -> None:
        self.seed = seed
        self.loop = loop
        self.fate = Fate(seed)
        climate = self.fate.climate
        known = climate.replay is Replay.GRACE and climate.grace_is_known
        grace = GRACE if known else timedelta()
        self.rules = dataclasses.replace(RULES, identity_interval=timedelta(days=1), replay_grace=grace)
        self.life_seconds = climate.life.total_seconds()
        self.wild_seconds = self.life_seconds * climate.lives
        self.clock = VirtualClock(loop)
        self.alarms = {kind: Alarm(loop) for kind in NEXT_DUE}
        self.processes: list[Process] = []
        self._folder = folder
        self._ids = 0
        self.vault = Vault(cast_ring(folder / "keys.json"))
        cast_sqlite(folder / "accounts.db")
        self.engine = SimulatedEngine(folder / "accounts.db", self.clock)
        self.engine.observe()
        self.ledger = Ledger(climate.replay, self.life_seconds)
        folders = [self.journal_folder(place) for place in range(climate.processes)]
        self.judge = Judge(loop, self.ledger, Disk(self.engine, self.vault, folders))
        self.judge.grace_seconds = grace.total_seconds()
        self.judge.out_of_reach = self._journals_out_of_reach
        self.weather = Weather(self, self.fate.storms(self.wild_seconds))
        loop.set_task_factory(remember_task)  # type: ignore[arg-type]
        loop.delay_of_threads = self.fate.step

    def journal_folder(self, place: int) -> Path:
        folder = self._folder / f"journal-{place}"
        folder.mkdir(exist_ok=True)
        return folder

    def new_id(self) -> str:
        """UUIDv7 text from virtual time and a count, so that a seed gives the same ids again."""
        self._ids += 1
        milliseconds = round(self.loop.time() * 1000) + START_US // 1000
        low = self.fate.rng.getrandbits(30) << 32 | self._ids
        return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | 0x2 << 62 | low))

    # --- the database

    def database_is_away(self) -> bool:
        return self.loop.time() < self.engine.away_until

    def perhaps_lose_database(self) -> None:
        if self.fate.happens(self.fate.climate.outages) and not self.database_is_away():
            self.engine.away_until = self.loop.time() + self.fate.outage()
            self.judge.note(f"the database is away until {self.engine.away_until:.0f}")

    def commit(self, work: Callable[[Any], T]) -> T:
        try:
            return self.engine.commit(work)
        finally:
            seen = self.engine.observations()
            self.judge.look(seen)
            for each in seen:
                if each.due is not None:
                    kind = "outbox" if each.what == "outbox" else "grants"
                    self.alarms[kind].ring_at(to_loop_time(each.due))

    def next_due(self, kind: str) -> float:
        [due] = self.engine.database.execute_sql(NEXT_DUE[kind]).fetchone()
        return NEVER if due is None else to_loop_time(due)

    # --- processes

    def start_process(self, place: int, life: int) -> None:
        process = Process(self, place, life)
        self.processes[place : place + 1] = [process]
        process.start()

    def crash(self, process: Process) -> None:
        """It is gone, with all that was in its memory alone; later another takes its place."""
        self.judge.note(f"{process.owner} dies")
        self.judge.count("crashes")
        process.alive = False
        on_disk = self.judge.disk.refresh_tokens()
        for pair in process.in_hand:
            if pair is pair.grant.live and pair.in_memory and pair.refresh not in on_disk:
                pair.lost = True
                self.judge.note(f"pair {pair.number} is lost with it", pair.grant)
                self.judge.count("pairs lost with a process")
        for task in list(process.tasks):
            task.cancel()
        place, life = process.owner.removeprefix("process ").split(".")
        self.loop.call_later(self.fate.restart(), self.start_process, int(place), int(life) + 1)

    def running(self) -> list[Process]:
        return [process for process in self.processes if process.alive]

    def _journals_out_of_reach(self) -> list[Path]:
        now = self.loop.time()
        return [self.journal_folder(each.place) for each in self.processes if not each.alive or now < each.paused_until]

    # --- its course

    async def live(self) -> Outcome:
        for place in range(self.fate.climate.processes):
            self.start_process(place, 1)
        people = self.loop.create_task(self._people())
        wild = self.loop.create_task(asyncio.sleep(self.wild_seconds))
        await asyncio.wait({wild, self.judge.over}, return_when=asyncio.FIRST_COMPLETED)
        self._calm()
        await asyncio.wait({self.judge.over}, timeout=(CALM + self.fate.climate.life).total_seconds())
        people.cancel()
        if not self.judge.objections:
            await self._come_to_rest()
        return self._outcome()

    async def _people(self) -> None:
        await connect_everybody(self)
        await asyncio.gather(revoke_at_the_platform(self), act_for_callers(self))

    def _calm(self) -> None:
        self.judge.note("the faults are off")
        self.fate.calm()
        self.engine.away_until = 0.0
        for process in self.processes:
            process.paused_until = 0.0

    async def _come_to_rest(self) -> None:
        """Drains every process, and has the judge look at what is left."""
        drained = [process.spawn(process.drain()) for process in self.running()]
        _, unfinished = await asyncio.wait(drained, timeout=DRAIN_SECONDS)
        sent = GrantRow.select().where(GrantRow.state == GrantState.SENT).count(self.engine.database)
        if unfinished or sent:
            self.judge.object(f"{len(unfinished)} drains did not end and {sent} refreshes did not either")
        store = Store(self.engine, self.vault, self.new_id)
        ids = [row.id for row in AccountRow.select(AccountRow.id).execute(self.engine.database)]
        due = RevocationRow.select().where(RevocationRow.due_time.is_null(False)).count(self.engine.database)
        self.judge.at_the_end(list(await store.accounts(ids)), due)

    def _outcome(self) -> Outcome:
        accounts = AccountRow.select().count(self.engine.database)
        counts = dict(self.judge.counts)
        counts["grants"] = len(self.ledger.grants)
        counts["left in grants"] = GrantRow.select().count(self.engine.database)
        return Outcome(
            seed=self.seed,
            objections=self.judge.objections,
            counts=counts,
            account_years=accounts * self.loop.time() / (365.25 * 86400),
            refreshes=self.ledger.refreshes,
            chronicle=list(self.judge.chronicle),
        )


def to_loop_time(due_us: float) -> float:
    """A little later, so that what is due then is due."""
    return (due_us - START_US) / 1e6 + 0.001
