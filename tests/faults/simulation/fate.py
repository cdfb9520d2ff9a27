"""Fate: everything that is left to chance, drawn from one seed, so that a seed is a story that can be told again."""

import random
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

GRACE = timedelta(minutes=1)


class Fault(Enum):
    """What the way to the platform, or the platform, does to one request."""

    NONE = "answered"
    SLOW = "answered slowly"
    NOT_SENT = "not sent"
    BUSY = "429"
    BUSY_UNTIL = "429 with Retry-After"
    DOWN_BEFORE = "503 before it did anything"
    DOWN_AFTER = "503 after it did it"
    LOST_BEFORE = "lost on the way there"
    LOST_AFTER = "answer lost"
    LATE = "answered too late"
    UNREADABLE = "answer unreadable"
    CLIENT_REFUSED = "invalid_client"


DONE_ALL_THE_SAME = {
    Fault.NONE,
    Fault.SLOW,
    Fault.LATE,
    Fault.DOWN_AFTER,
    Fault.LOST_AFTER,
    Fault.UNREADABLE,
}
"""The platform has done what it was asked, whatever we hear of it."""

REFUSED = {Fault.BUSY, Fault.BUSY_UNTIL, Fault.CLIENT_REFUSED}
"""The platform says that it has not done it."""

SINGLE = [fault for fault in Fault if fault not in (Fault.NONE, Fault.CLIENT_REFUSED)]
STORMS = [Fault.NOT_SENT, Fault.BUSY, Fault.BUSY_UNTIL, Fault.DOWN_BEFORE, Fault.LOST_BEFORE, Fault.CLIENT_REFUSED]


class Replay(Enum):
    """What the platform does when a spent refresh token comes again."""

    KILLS = "kills its grant"
    REFUSED = "is refused"
    GRACE = "works for a minute, then kills its grant"


@dataclass(frozen=True)
class Climate:
    """What kind of world a seed makes."""

    processes: int
    accounts: int
    life: timedelta
    """How long access tokens live."""
    lives: int
    """How many of these lives the world lasts."""
    replay: Replay
    grace_is_known: bool
    """Whether our definition of the platform names its grace."""
    faults: float
    """The share of requests that go wrong."""
    storms: int
    crashes: float
    """The chance that a process dies, at each of its steps."""
    pauses: float
    outages: float
    """The chance that the database goes away, at each write."""
    full_disk: float
    user_revokes: int
    caller_acts: int


def draw_climate(rng: random.Random) -> Climate:
    minutes = rng.choice([10, 30, 120, 120, 480])
    return Climate(
        processes=rng.choice([1, 2, 3]),
        accounts=rng.randint(4, 12),
        life=timedelta(minutes=minutes),
        lives=40,
        replay=rng.choice([Replay.KILLS, Replay.KILLS, Replay.REFUSED, Replay.GRACE, Replay.GRACE]),
        grace_is_known=rng.random() < 0.5,
        faults=rng.choice([0.0, 0.02, 0.1, 0.3]),
        storms=rng.choice([0, 1, 3]),
        crashes=rng.choice([0.0, 0.0005, 0.003, 0.01]),
        pauses=rng.choice([0.0, 0.001, 0.005]),
        outages=rng.choice([0.0, 0.005, 0.03]),
        full_disk=rng.choice([0.0, 0.3]),
        user_revokes=rng.choice([0, 2, 5]),
        caller_acts=rng.choice([0, 10, 30]),
    )


class Fate:
    """The dice of one world. `calm()` ends all that goes wrong; delays stay."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.climate = draw_climate(self.rng)
        self.wild = True

    def calm(self) -> None:
        self.wild = False

    def happens(self, chance: float) -> bool:
        return self.wild and chance > 0 and self.rng.random() < chance

    def step(self) -> float:
        """Seconds between two steps of a process: mostly a moment, now and then long enough for anything between."""
        size = self.rng.random()
        if size < 0.9:
            return self.rng.random() * 0.005
        return self.rng.random() * (0.3 if size < 0.99 else 3.0)

    def pause(self) -> float:
        """Seconds that a process stands still: shorter and longer than a lease."""
        return self.rng.choice([5.0, 30.0, 90.0, 300.0, 1500.0]) * self.rng.random()

    def outage(self) -> float:
        return self.rng.choice([2.0, 30.0, 120.0, 900.0]) * self.rng.random()

    def restart(self) -> float:
        return self.rng.choice([1.0, 30.0, 90.0, 600.0]) * self.rng.random()

    def there_and_back(self, fault: Fault) -> tuple[float, float]:
        """Seconds until a request is worked on, and from then until the answer is here."""
        there, back = self.rng.random() * 0.3, self.rng.random() * 0.3
        if fault is Fault.SLOW:
            slow = self.rng.random() * 18
            return (there + slow, back) if self.rng.random() < 0.5 else (there, back + slow)
        if fault in (Fault.LATE, Fault.LOST_BEFORE, Fault.LOST_AFTER):
            late = self.rng.random() * 40 if fault is not Fault.LATE else 20 + self.rng.random() * 30
            return (there + late, back) if self.rng.random() < 0.5 else (there, back + late)
        return there, back

    def retry_after(self) -> float:
        return self.rng.choice([1.0, 30.0, 120.0, 900.0])

    def single_fault(self) -> Fault:
        return self.rng.choice(SINGLE) if self.happens(self.climate.faults) else Fault.NONE

    def storms(self, span: float) -> list[tuple[float, float, Fault]]:
        """When most requests fare alike: begin, end, and how."""
        found = []
        for _ in range(self.climate.storms):
            begin, length = self.rng.random() * span, self.rng.choice([120.0, 900.0, 3600.0])
            found.append((begin, begin + length, self.rng.choice(STORMS)))
        return found
