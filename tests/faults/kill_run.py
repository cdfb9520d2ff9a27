"""One kill from rest to rest: reach the point, look at what is left, start again, wait, judge."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.control import Control
from tests.faults.kills import Way
from tests.faults.scene import Scene
from tests.faults.verdict import AtDeath, Fate, at_death, judge
from tests.faults.victim import USERS, Victim

Ledger = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What one kill did, and what is wrong with that."""

    way: Way
    missed: str
    """Why it does not count: the point was not hit. Empty if it was."""
    deaths: Mapping[str, AtDeath]
    """Where each grant in flight stood."""
    fates: Mapping[str, Fate]
    """What became of every grant, those that were not in flight included."""
    problems: tuple[str, ...]
    serving_seconds: float | None
    """From the start of the process to the first answer; None where nothing was killed."""

    @property
    def wrongs(self) -> list[str]:
        """All that speaks against the server, whether the point was hit or not: what counts is where each was found."""
        unavoidable = {user for user, death in self.deaths.items() if death.unavoidable_loss}
        lost = {user for user, fate in self.fates.items() if fate is Fate.LOST}
        wrongs = list(self.problems)
        if lost != unavoidable:
            wrongs.append(f"lost: {sorted(lost)}, unavoidably: {sorted(unavoidable)}")
        return wrongs

    @property
    def point(self) -> str:
        """Where it hit: a way that aims at a span counts where it found the grants."""
        found = sorted({death.point for death in self.deaths.values()})
        return found[0] if self.way.point == "K3" and found else self.way.point


async def carry_out(way: Way, victim: Victim) -> Outcome:
    await victim.until_settled()
    users = USERS[:1] if way.alone else USERS
    victim.log_from_here()
    async with victim.sandbox() as sandbox:
        await sandbox.clear_requests()
        before = await victim.ledger()
        scene = Scene(victim, sandbox, users)
        try:
            async with asyncio.timeout(60):
                await way.reach(scene)
        finally:
            await scene.stop_watching()
            await sandbox.clear_faults()
        requests = await refreshes_at_rest(sandbox)
    deaths: dict[str, AtDeath] = {}
    missed, serving_seconds = "", None
    if way.kills:
        ledger = await victim.ledger()
        rows, journaled = victim.remains.grants(server_is_dead=True), victim.remains.journal()
        for user in users:
            row = rows[victim.account_ids[user]]
            deaths[user] = at_death(before[user], ledger[user], row, journaled.get(row.id), requests)
        missed = why_missed(way, scene, deaths)
        if victim.proxy is not None:
            victim.remains.let_leases_end()
        serving_seconds = await victim.restart()
    fates, problems = await judged(victim, deaths, before)
    if lost := [user for user, fate in fates.items() if fate is not Fate.KEPT]:
        await victim.connect(*lost)
    return Outcome(way, missed, deaths, fates, problems, serving_seconds)


def why_missed(way: Way, scene: Scene, deaths: Mapping[str, AtDeath]) -> str:
    """A point that was not hit proves nothing. K4 and K7 leave what K3 and K6 leave; the trace and the proxy tell."""
    found = {user: death.point for user, death in deaths.items()}
    if not set(found.values()) <= way.sightings:
        return f"found {found}"
    if way.point in ("K4", "K7") and not scene.answers_read and not scene.hits:
        return "no answer had come in"
    return ""


async def judged(
    victim: Victim, deaths: Mapping[str, AtDeath], before: Ledger
) -> tuple[dict[str, Fate], tuple[str, ...]]:
    """The fate of every grant, those that were not in flight included."""
    rows = await victim.until_settled()
    accounts, ledger = await victim.accounts(), await victim.ledger()
    async with victim.sandbox() as sandbox:
        requests = await refreshes_at_rest(sandbox)
    fates, problems = {}, []
    for user, account in accounts.items():
        row = rows[victim.account_ids[user]]
        fates[user], problem = judge(deaths.get(user), before[user], ledger[user], row, account, requests)
        if problem:
            problems.append(f"{user}: {problem} ({deaths.get(user)})")
    return fates, tuple(problems)


async def refreshes_at_rest(sandbox: Control) -> list[dict[str, Any]]:
    """The refreshes that reached the platform, once it has dealt with what a dead server had sent."""
    requests = await sandbox.requests("token")
    while True:
        await asyncio.sleep(0.02)
        before, requests = requests, await sandbox.requests("token")
        if requests == before:
            return [each for each in requests if each["grant_type"] == "refresh_token"]
