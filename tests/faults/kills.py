"""The ways to end a server at each crash point between "due" and "the new token set is durable".

K0  before the claim is committed            K4  the answer received, nothing of it written
K1  claimed, nothing sent                    K5  the database refused it, the journal has it
K2  sent, the platform has not acted         K6  committed, and nothing after that
K3  rotated, the answer under way            K7  PostgreSQL: the outcome of a commit is not known
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from tests.faults.commit_proxy import CLAIM, REFRESH
from tests.faults.scene import Scene
from tests.faults.victim import PATIENCE

KILL = "signal=SIGKILL"


@dataclass(frozen=True)
class Way:
    """One way to reach a point."""

    point: str
    how: str
    reach: Callable[[Scene], Awaitable[None]]
    alone: bool = False
    """One grant in flight: the others would be at other points."""
    seen_as: str = ""
    """The points at which it may find the grants, by what is on the disk and in the ledger; empty: its own."""
    kills: bool = True
    """False: the server lives on."""

    @property
    def sightings(self) -> set[str]:
        return set(self.seen_as.split()) or {{"K4": "K3", "K7": "K6"}.get(self.point, self.point)}


# --- with system calls


async def at_claim(scene: Scene, call: str, when: int = 1) -> None:
    """At a call between the moment it is due and the moment it is sent."""
    scene.inject(f"{call}:{KILL}:when={when}")
    scene.make_due()
    await scene.ended()


async def at_answer(scene: Scene, call: str, when: int = 1) -> None:
    """At a call after the platform's answer left."""
    await scene.hold("hold_after")
    scene.inject(f"{call}:{KILL}:when={when}")
    await scene.sandbox.release()
    await scene.ended()


async def refused_by_the_file(scene: Scene, error: str) -> None:
    """The file takes no write, the journal took them all."""
    await scene.hold("hold_after")
    scene.inject(f"pwrite64:error={error}")
    await scene.sandbox.release()
    await scene.until_journaled()
    await scene.kill()


async def within_the_journal(scene: Scene, call: str, when: int) -> None:
    await scene.hold("hold_after")
    scene.inject("pwrite64:error=EIO", f"{call}:{KILL}:when={when}")
    await scene.sandbox.release()
    await scene.ended()


async def within_the_replay(scene: Scene, call: str, *, of_entry: bool) -> None:
    """Killed with a journal, started, and killed again while it brings that into the database."""
    await refused_by_the_file(scene, "EIO")
    await scene.stop_watching()
    folder = scene.victim.remains.journal_folder
    path = min(folder.glob("[!.]*")) if of_entry else folder.with_name("accounts.db-wal")
    await asyncio.to_thread(scene.start_and_die, f"{call}:{KILL}:when=1", path)


# --- with the platform


async def before_it_acted(scene: Scene) -> None:
    await scene.hold("hold_before")
    await scene.kill()


async def after_it_rotated(scene: Scene) -> None:
    await scene.hold("hold_after")
    await scene.kill()


async def after_the_answer_left(scene: Scene, milliseconds: float) -> None:
    await scene.hold("hold_after")
    await scene.sandbox.release()
    await asyncio.sleep(milliseconds / 1000)
    await scene.kill()


# --- with PostgreSQL


async def at_commit_of_claim(scene: Scene, *, forward: bool) -> None:
    scene.proxy.arm(CLAIM, forward=forward, cut=False)
    scene.make_due()
    await scene.proxy.until_hit()
    await scene.kill()


async def at_commit_of_answer(scene: Scene, *, forward: bool) -> None:
    await scene.hold("hold_after")
    scene.proxy.arm(REFRESH, forward=forward, cut=False, times=len(scene.users))
    await scene.sandbox.release()
    await scene.proxy.until_hit(len(scene.users))
    await scene.kill()


async def refused_by_postgres(scene: Scene) -> None:
    await scene.hold("hold_after")
    scene.proxy.refuse()
    try:
        await scene.sandbox.release()
        await scene.until_journaled()
        await scene.kill()
    finally:
        scene.proxy.admit()


async def after_postgres_had_it(scene: Scene) -> None:
    """Committed and told so; killed as soon as the row shows it."""
    await scene.hold("hold_after")
    before = {name: grant.generation for name, grant in scene.victim.remains.grants().items()}
    await scene.sandbox.release()
    deadline = time.monotonic() + PATIENCE
    mine = [scene.victim.account_ids[user] for user in scene.users]
    while any(scene.victim.remains.grants()[each].generation == before[each] for each in mine):
        assert time.monotonic() < deadline, "it was not committed"
    await scene.kill()


async def cut_at_commit_of_answer(scene: Scene, *, forward: bool) -> None:
    """The connections break during the commits; the server lives, and finds out by itself."""
    await scene.hold("hold_after")
    scene.proxy.arm(REFRESH, forward=forward, cut=True, times=len(scene.users))
    await scene.sandbox.release()
    await scene.proxy.until_hit(len(scene.users))
    await scene.victim.until_logged("an answer came in from the journal", len(scene.users))


async def cut_at_commit_of_claim(scene: Scene, *, forward: bool) -> None:
    scene.proxy.arm(CLAIM, forward=forward, cut=True)
    scene.make_due()
    await scene.proxy.until_hit()
    scene.victim.remains.let_leases_end()


AT_THE_PLATFORM = (
    Way("K2", "held at the platform, which has not acted", before_it_acted),
    Way("K3", "held at the platform, which has rotated", after_it_rotated),
)
ON_SQLITE = (
    Way("K0", "at the first byte of the claim", partial(at_claim, call="pwrite64")),
    Way("K0", "with half of the claim in the log", partial(at_claim, call="pwrite64", when=4)),
    Way("K1", "at the sync of the claim", partial(at_claim, call="fsync")),
    Way("K1", "at the connect", partial(at_claim, call="connect")),
    Way("K1", "connected, before a byte is sent", partial(at_claim, call="getsockopt")),
    *AT_THE_PLATFORM,
    Way("K4", "at the first byte of the commit", partial(at_answer, call="pwrite64")),
    Way("K4", "with half of the commit in the log", partial(at_answer, call="pwrite64", when=4), alone=True),
    Way("K5", "no space in the database, journaled", partial(refused_by_the_file, error="ENOSPC")),
    Way("K5", "an I/O error of the database, journaled", partial(refused_by_the_file, error="EIO")),
    Way("K5", "at the sync of the entry", partial(within_the_journal, call="fsync", when=1), alone=True),
    Way("K5", "at the rename of the entry", partial(within_the_journal, call="rename", when=1), alone=True),
    Way("K5", "at the sync of the journal's folder", partial(within_the_journal, call="fsync", when=2), alone=True),
    Way("K5", "at the first byte of the replay", partial(within_the_replay, call="pwrite64", of_entry=False)),
    Way(
        "K5",
        "at the first erasure of the replay",
        partial(within_the_replay, call="unlink", of_entry=True),
        seen_as="K5 K6",
    ),
    Way("K6", "at the sync of the commit", partial(at_answer, call="fsync"), alone=True),
    Way("K6", "synced, and nobody told", partial(at_answer, call="write"), alone=True),
)
AFTER_THE_ANSWER_LEFT = tuple(
    Way("K3", f"{ms} ms after the answers left", partial(after_the_answer_left, milliseconds=ms), seen_as="K3 K6")
    for ms in range(51)
)
ON_POSTGRES = (
    Way("K0", "the COMMIT of the claim never arrived", partial(at_commit_of_claim, forward=False)),
    Way("K1", "the claim is committed, its reply is not here", partial(at_commit_of_claim, forward=True)),
    *AT_THE_PLATFORM,
    Way("K4", "the COMMIT of the answer never arrived", partial(at_commit_of_answer, forward=False), alone=True),
    Way("K5", "PostgreSQL was away, journaled", refused_by_postgres),
    Way("K6", "as soon as the row is there", after_postgres_had_it, alone=True),
    Way("K7", "committed, and the reply is not here", partial(at_commit_of_answer, forward=True), alone=True),
)
CUT_CONNECTIONS = (
    Way(
        "K7", "the reply to COMMIT was cut off", partial(cut_at_commit_of_answer, forward=True), kills=False, alone=True
    ),
    Way("K7", "COMMIT itself was cut off", partial(cut_at_commit_of_answer, forward=False), kills=False, alone=True),
    Way(
        "K7", "the reply to the claim's COMMIT was cut off", partial(cut_at_commit_of_claim, forward=True), kills=False
    ),
    Way("K7", "the claim's COMMIT was cut off", partial(cut_at_commit_of_claim, forward=False), kills=False),
)
