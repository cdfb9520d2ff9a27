"""The hash chain over the events: each link vouches for its event and for all links before it.

A link is `SHA-256(previous link, position, hash of the event)`. The hash of an event covers everything but its personal
part (profile and personal facts), and in place of that `SHA-256(salt, personal part)`. So the personal part can be
erased, with the salt, and the chain still verifies; nobody can guess a handle back from its hash without the salt; and
which events were erased so is itself an event of the chain.

A chain inside each transaction would serialise all writers, so one process at a time links what is committed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from server.accounts.events import EventKind

GENESIS: Final = "0" * 64
"""What the first link follows."""

VERSION: Final = 1

COMPACT: Final = json.JSONEncoder(separators=(",", ":"))

WRITTEN_ANEW: Final = "another link was noted here: the chain was written anew"
BEFORE_THE_START: Final = (
    "the link that was noted here cannot be vouched for: the chain begins after it. Either the audit was pruned since "
    "it was noted, or somebody wrote the chain anew and made it look so"
)


class Recorded(NamedTuple):
    """An event as it is stored: what its hash is made of."""

    id: str
    number: int | None
    time: int
    kind: str
    account_id: str | None
    profile_id: str
    platform: str
    caller: str
    peer: str
    request_id: str
    result: str
    facts: str
    personal: str | None
    chain_position: int | None


class Link(NamedTuple):
    """A link as it is stored. Without its salt, the personal part of its event is erased."""

    position: int
    event_id: str
    salt: str
    personal_hash: str
    link: str


class ChainPlace(NamedTuple):
    """A position in the chain and the link there."""

    position: int
    link: str


def digest(*parts: Any) -> str:
    """SHA-256 in hex; parts are written as JSON, so that no two lists of them are the same bytes."""
    return hashlib.sha256(COMPACT.encode(parts).encode()).hexdigest()


def personal_hash(salt: str, event: Recorded) -> str:
    return digest(salt, event.profile_id, event.personal)


def next_link(before: ChainPlace, event: Recorded, hash_of_personal: str) -> str:
    kept = event._replace(profile_id="", personal=None, chain_position=None)
    return digest(before.link, before.position + 1, digest(VERSION, *kept, hash_of_personal))


def facts_of(text: str) -> Mapping[str, Any]:
    """Raises ValueError for what the service did not write: somebody put it into the database."""
    facts = json.loads(text)
    if not isinstance(facts, dict):
        raise ValueError("facts are named")
    return facts


@dataclass(frozen=True, slots=True)
class Broken:
    """The first place where the chain does not hold, and what is wrong there."""

    position: int
    event_id: str
    problem: str


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a verification found."""

    start: ChainPlace
    """What the first link follows: the beginning, or where the audit was last pruned to."""
    first_time: int | None
    """When the first event that is still linked was recorded; None if there is none."""
    head: ChainPlace
    """The last link that was verified. Note it elsewhere: it proves later that nothing before it was rewritten."""
    broken: Broken | None
    redacted: int
    """How many events have lost their personal part to an erasure."""
    tail: tuple[Recorded, ...]
    """What is not linked yet, oldest first; that which is older than a minute should be."""


class Verifier:
    """Walks the chain link by link and keeps the first thing that is wrong."""

    def __init__(self, start: ChainPlace, noted: ChainPlace | None = None) -> None:
        """`start` is what the first link follows; `noted` a link that was noted elsewhere and must still be there."""
        self.start = self.head = start
        self._noted = noted
        self.first_time: int | None = None
        self.broken: Broken | None = None
        self.redacted = 0
        self._unexplained: dict[str, int] = {}
        self._pruned: set[ChainPlace] = {ChainPlace(0, GENESIS)}

    def follow(self, link: Link, event: Recorded | None) -> bool:
        """Checks the next link; False once the chain is broken."""
        if link.position != self.head.position + 1:
            return self._break(self.head.position + 1, "", "the link and its event were deleted")
        if event is None:
            return self._break(link.position, link.event_id, "the event was deleted")
        if problem := self._problem(link, event):
            return self._break(link.position, event.id, problem)
        self.head = ChainPlace(link.position, link.link)
        if self.first_time is None:
            self.first_time = event.time
        if not link.salt:
            self.redacted += 1
            self._unexplained[event.id] = link.position
        self.explain(event)
        return self.broken is None

    def _problem(self, link: Link, event: Recorded) -> str:
        if event.chain_position != link.position:
            return "the event is not where it was linked"
        if not link.salt and (event.personal is not None or event.profile_id):
            return "the event was edited after its personal data was erased"
        if link.salt and personal_hash(link.salt, event) != link.personal_hash:
            return "the personal part of the event was edited"
        if next_link(self.head, event, link.personal_hash) != link.link:
            return "the event was edited, inserted or moved"
        if self._was_another(ChainPlace(link.position, link.link)):
            return WRITTEN_ANEW
        return ""

    def _was_another(self, place: ChainPlace) -> bool:
        """Whether another link was noted there."""
        noted = self._noted
        return noted is not None and noted.position == place.position and noted.link != place.link

    def explain(self, event: Recorded) -> None:
        """Takes note of an event that says what was erased; also one that is not linked yet."""
        try:
            self._take(event.kind, facts_of(event.facts))
        except (ValueError, KeyError, TypeError):
            if self.broken is None:
                self._break(event.chain_position or self.head.position + 1, event.id, "its facts cannot be read")

    def _take(self, kind: str, facts: Mapping[str, Any]) -> None:
        if kind == EventKind.PERSONAL_DATA_ERASED:
            for event_id in facts["events"]:
                self._unexplained.pop(event_id, None)
        elif kind == EventKind.AUDIT_PRUNED:
            self._pruned.add(ChainPlace(facts["position"], facts["link"]))

    def inserted(self, position: int, event_id: str) -> None:
        """An event that says that it was linked, and was not."""
        if self.broken is None or position < self.broken.position:
            self.broken = Broken(position, event_id, "the event was inserted")

    def end(self, head: ChainPlace) -> None:
        """Checks what only the whole chain shows; `head` is the last link as the database has it."""
        if self.broken is not None:
            return
        if self.head != head:
            self._break(self.head.position + 1, "", f"the links up to {head.position} were deleted")
        elif self._noted is not None and self._noted.position > self.head.position:
            self._break(self.head.position + 1, "", f"the links up to {self._noted.position} were deleted")
        elif self._noted is not None and self._noted.position < self.start.position:
            self._break(self._noted.position, "", BEFORE_THE_START)
        elif self._was_another(self.start):
            self._break(self.start.position, "", WRITTEN_ANEW)
        elif self.start not in self._pruned:
            self._break(self.start.position, "", "the beginning was deleted, and no event says that it was pruned")
        elif self._unexplained:
            event_id, position = min(self._unexplained.items(), key=lambda each: each[1])
            self._break(position, event_id, "its personal data was erased, and no event says so")

    def _break(self, position: int, event_id: str, problem: str) -> bool:
        self.broken = Broken(position, event_id, problem)
        return False
