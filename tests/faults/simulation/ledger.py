"""The ledger of the pretend platform: which pair of which grant is live, and what has reached it."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.faults.simulation.fate import GRACE, Replay


@dataclass
class Arrival:
    """One refresh request as it reached the platform, or was lost before it could."""

    owner: str
    sent_at: float
    heard: bool = False
    """Whether the process that sent it has heard what became of it."""
    brought: "Pair | None" = None


@dataclass
class Pair:
    """An access and a refresh token, and what became of them on our side."""

    grant: "LedgerGrant"
    number: int
    access_ends: float
    holder: "asyncio.Task[Any] | None" = None
    """The task of ours that was given it."""
    lost: bool = False
    """It came, and the process died before it was on any disk."""
    stored_at: float | None = None
    """When it became the token set of its grant in our database."""
    arrivals: list[Arrival] = field(default_factory=list)
    """The refreshes it was sent with that may have had an effect."""
    spent_at: float | None = None

    @property
    def refresh(self) -> str:
        return f"rt-{self.grant.id}-{self.number}"

    @property
    def access(self) -> str:
        return f"at-{self.grant.id}-{self.number}"

    @property
    def ours(self) -> bool:
        """Whether we have it, so that losing it would be our fault."""
        return self.holder is not None and not self.lost

    @property
    def in_memory(self) -> bool:
        """Whether the task that was given it is still at work, so that it may be nowhere else."""
        return self.holder is not None and not self.holder.done()


@dataclass
class LedgerGrant:
    """One consent of one user."""

    id: int
    user: str
    alive: bool = True
    access_alive: bool = True
    pairs: list[Pair] = field(default_factory=list)
    ended_by: str = ""

    @property
    def live(self) -> Pair:
        return self.pairs[-1]

    def end(self, why: str) -> None:
        if self.alive:
            self.alive, self.access_alive, self.ended_by = False, False, why


class Ledger:
    """The platform's own memory."""

    def __init__(self, replay: Replay, life_seconds: float) -> None:
        self.grants: list[LedgerGrant] = []
        self.tokens: dict[str, Pair] = {}
        self.refreshes = 0
        self._replay = replay
        self._life = life_seconds

    def consent(self, user: str, now: float) -> Pair:
        grant = LedgerGrant(len(self.grants) + 1, user)
        self.grants.append(grant)
        return self._mint(grant, now)

    def refresh(self, token: str, now: float) -> Pair | None:
        """The pair that a refresh token brings; None: it is refused for good."""
        pair = self.tokens[token]
        grant = pair.grant
        if not grant.alive:
            return None
        if pair is grant.live or self._in_grace(pair, now):
            pair.spent_at = now if pair.spent_at is None else pair.spent_at
            grant.live.spent_at = now if grant.live.spent_at is None else grant.live.spent_at
            self.refreshes += 1
            return self._mint(grant, now)
        if self._replay is not Replay.REFUSED:
            grant.end("replay")
        return None

    def accepts(self, access_token: str, now: float) -> bool:
        """Whether an access token opens the user's identity."""
        pair = self.tokens[access_token]
        grant = pair.grant
        return grant.access_alive and pair is grant.live and now < pair.access_ends

    def revoke(self, token: str) -> None:
        """RFC 7009: a live refresh token ends its grant, a live access token ends alone; others change nothing."""
        pair = self.tokens[token]
        if pair is pair.grant.live:
            if token == pair.refresh:
                pair.grant.end("revoked by us")
            pair.grant.access_alive = False

    def _in_grace(self, pair: Pair, now: float) -> bool:
        return (
            self._replay is Replay.GRACE and pair.spent_at is not None and now - pair.spent_at <= GRACE.total_seconds()
        )

    def _mint(self, grant: LedgerGrant, now: float) -> Pair:
        pair = Pair(grant, len(grant.pairs) + 1, now + self._life)
        grant.pairs.append(pair)
        grant.access_alive = True
        self.tokens[pair.refresh] = self.tokens[pair.access] = pair
        return pair
