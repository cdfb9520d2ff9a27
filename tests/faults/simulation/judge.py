"""The judge: looks at every commit and every request that reaches the platform, and objects to what must not be."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.accounts.model import Status, StatusReason
from server.accounts.timing import REPLAY_MARGIN
from tests.faults.simulation.database import Disk
from tests.faults.simulation.ledger import Arrival, Ledger, LedgerGrant, Pair
from tests.faults.simulation.virtual_time import VirtualLoop

MOST_SENDS = 2
"""A refresh token of unknown fate is tried once more, never twice."""

LEASE_SECONDS = 60.0

SLACK = 10.0
"""Seconds that may pass between a decision and what follows from it."""


@dataclass
class Claim:
    """One claim of a grant, as the database and the platform saw it."""

    owner: str
    time: float
    generation: int
    interrupts: bool
    """It found the claim of a process that had never ended it: it sends nothing, it only notes that."""
    ended: str = ""
    arrival: Arrival | None = None

    @property
    def spent(self) -> bool:
        """Whether, for all that we know, its request had an effect and nobody heard of it."""
        unheard = self.arrival is not None and not self.arrival.heard
        return not self.interrupts and (unheard or self.ended == "ran out")


class Judge:
    """Keeps the chronicle, and the objections; the first of these ends the world."""

    def __init__(self, loop: VirtualLoop, ledger: Ledger, disk: Disk) -> None:
        self.objections: list[str] = []
        self.over = loop.create_future()
        self.grace_seconds = 0.0
        """How long a spent refresh token works again, as far as we know."""
        self.out_of_reach: Callable[[], list[Path]] = list
        """The journals of processes that are down or stand still now."""
        self.next_claim: asyncio.Future[LedgerGrant] = loop.create_future()
        self.chronicle: deque[tuple[float, str, str]] = deque(maxlen=5000)
        self.grants: dict[str, LedgerGrant] = {}
        """The ledger's grant behind each of ours."""
        self.accounts: dict[str, list[str]] = {}
        """The grants that each account has had, the newest last."""
        self.counts: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._claims: dict[str, list[Claim]] = {}
        self._loop = loop
        self._ledger = ledger
        self.disk = disk

    def note(self, text: str, about: LedgerGrant | None = None, user: str = "") -> None:
        """Writes down what happened, to a grant, to a user, or to all."""
        who = f"{about.user} grant {about.id}" if about else user
        self.chronicle.append((self._loop.time(), who, text))

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def object(self, text: str, about: LedgerGrant | None = None) -> None:
        self.note("OBJECTION: " + text, about)
        self.objections.append(f"{text}\n{self.story(about)}")
        if not self.over.done():
            self.over.set_result(None)

    def story(self, about: LedgerGrant | None, last: int = 40) -> str:
        """The last events that concern a grant's user, with those around them that concern all."""
        about_user = {"", about.user} if about else None
        lines = [
            f"  {time:12.3f}  {who:12} {text}"
            for time, who, text in self.chronicle
            if about_user is None or who.partition(" ")[0] in about_user
        ]
        return "\n".join(lines[-last:])

    async def claimed(self) -> LedgerGrant:
        """The grant that is claimed next."""
        self.next_claim = self._loop.create_future()
        return await self.next_claim

    # --- what the database commits

    def look(self, observations: list[Any]) -> None:
        for seen in observations:
            if seen.what == "grant added":
                self._grant_added(seen)
        for seen in observations:
            if seen.what in ("claimed", "grant changed"):
                self._grant_changed(seen)
            elif seen.what == "account":
                self._account(seen)

    def _grant_added(self, seen: Any) -> None:
        grant = self._ledger.tokens[self.disk.refresh_token_of(seen.id)].grant
        self.grants[seen.id] = grant
        self._ids[grant.id] = seen.id
        self.note(f"connected as {seen.id}", grant)

    def _grant_changed(self, seen: Any) -> None:
        grant = self.grants[seen.id]
        if seen.generation_after not in (seen.generation_before, seen.generation_before + 1):
            self.object(f"generation {seen.generation_before} became {seen.generation_after}", grant)
        claims = self._claims.setdefault(seen.id, [])
        if seen.what == "claimed":
            if seen.state_before == "sent":
                claims[-1].ended = "ran out"
            if not self.next_claim.done():
                self.next_claim.set_result(grant)
            claims.append(Claim(seen.owner, self._loop.time(), seen.generation_after, seen.state_before == "sent"))
            self.note(f"claimed by {seen.owner}, found {seen.state_before}", grant)
        elif seen.state_before == "sent" and seen.state_after != "sent":
            claims[-1].ended = seen.state_after
        if seen.generation_before != seen.generation_after:
            self._ledger.tokens[self.disk.refresh_token_of(seen.id)].stored_at = self._loop.time()
        if (seen.state_before, seen.generation_before) != (seen.state_after, seen.generation_after):
            self.note(f"{seen.state_after}, generation {seen.generation_after}", grant)

    def _account(self, seen: Any) -> None:
        if seen.state_before == seen.state_after and seen.grant_before == seen.grant_after:
            return
        had = self.accounts.setdefault(seen.id, [])
        is_new = bool(seen.grant_after) and seen.grant_after not in had
        if is_new:
            had.append(seen.grant_after)
        grant = self.grants.get(had[-1])
        self.note(f"account {seen.id}: {Status(seen.state_after).name}", grant)
        if seen.state_after == Status.ACTIVE.value and not is_new:
            self.object("an account came back to life without a connect", grant)
        if seen.state_after == Status.EXPIRED.value and grant is not None:
            self.count(f"expired, {StatusReason(seen.generation_after).name}")
            self._expired(had[-1], grant, StatusReason(seen.generation_after))

    def _expired(self, grant_id: str, grant: LedgerGrant, reason: StatusReason) -> None:
        """Dead at the platform, or its only live pair never came; else it must have been lost from sight twice."""
        if not grant.alive or not grant.live.ours:
            self.count(f"  of them {grant.ended_by or 'the answer was lost'}")
            return
        claims = self._claims[grant_id]
        generation = claims[-1].generation
        spent = sum(claim.spent for claim in claims if claim.generation == generation)
        held = grant.live.refresh == self.disk.refresh_token_of(grant_id)
        if grant.live.in_memory:
            self.count("  of them the pair was in the memory of a process alone")
            return
        if held and reason is StatusReason.REFRESH_OUTCOME_LOST and spent >= MOST_SENDS:
            self.count("  of them given up alive after two unknown outcomes")
            return
        if grant.live.refresh in self.disk.in_journals(self.out_of_reach()):
            self.count("  of them the pair was in the journal of a process that was down or stood still")
            return
        where = "held by the grant" if held else "held elsewhere by us"
        self.object(f"EXPIRED ({reason.name}) while pair {grant.live.number}, {where}, lives; {spent} unheard", grant)

    # --- what reaches the platform

    def sent(self, pair: Pair, owner: str, *, effect: bool) -> Arrival:
        """A refresh request has left a process."""
        arrival = Arrival(owner, self._loop.time())
        if not effect:
            return arrival
        grant = pair.grant
        mine = [claim for claim in self._claims.get(self._ids[grant.id], ()) if claim.owner == owner]
        if mine and mine[-1].arrival is None:
            mine[-1].arrival = arrival
        before, pair.arrivals = pair.arrivals, [*pair.arrivals, arrival]
        if not before or not grant.alive:
            return arrival
        self.count("replays")
        self.count(f"  of them {self._replayed(before[-1])}")
        if len(before) >= MOST_SENDS:
            self.object(f"pair {pair.number} was sent for the {len(before) + 1}th time", grant)
        elif self._known(before, mine[-1]):
            self.object(f"pair {pair.number} was sent again although what it brought is stored", grant)
        elif self._loop.time() < before[0].sent_at + self.grace_seconds + SLACK:
            self.count("  of them within a known grace")
        elif self._loop.time() + SLACK < pair.access_ends - REPLAY_MARGIN.total_seconds():
            self.object(f"pair {pair.number} was sent again long before its access token ends", grant)
        return arrival

    def _known(self, before: list[Arrival], claim: Claim) -> bool:
        """Whether what was brought was stored when the sender claimed; or is now, and its claim is over."""
        stored = [each.brought.stored_at for each in before if each.brought and each.brought.stored_at is not None]
        return any(time < claim.time or claim.time + LEASE_SECONDS < self._loop.time() for time in stored)

    def _replayed(self, earlier: Arrival) -> str:
        """Where the answer to an earlier request is while the token is sent again."""
        brought = earlier.brought
        if brought is None:
            return "the earlier request has had no effect yet"
        if brought.ours:
            return f"its answer is in {'the memory of a process' if brought.in_memory else 'a database or a journal'}"
        return "its answer died with a process" if brought.lost else "its answer never came"

    # --- at the end

    def at_the_end(self, accounts: list[Any], outbox: int) -> None:
        """Faults are off, and time has passed: everything must have come to rest."""
        on_disk = self.disk.refresh_tokens()
        for account in accounts:
            grants = [self.grants[grant_id] for grant_id in self.accounts[account.id]]
            if account.status is Status.REVOKED:
                for grant in grants:
                    if grant.alive and grant.live.ours:
                        self.object(f"account {account.id} is REVOKED and pair {grant.live.number} lives", grant)
                if account.platform_revocation.name not in ("CONFIRMED", "NOTHING_TO_REVOKE"):
                    self.object(f"account {account.id} still says {account.platform_revocation.name}", grants[-1])
            elif account.status is Status.ACTIVE:
                grant = grants[-1]
                if not grant.alive or not grant.live.ours:
                    self.object(f"account {account.id} is silently dead: {grant.ended_by or 'answer lost'}", grant)
                elif grant.live.refresh not in on_disk or (
                    grant.live.refresh != self.disk.refresh_token_of(account.grant_id)
                ):
                    self.object(f"account {account.id} does not hold its live pair {grant.live.number}", grant)
        if outbox:
            self.object(f"{outbox} entries of the outbox are due and never went")
