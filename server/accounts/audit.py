"""The audit: where a call came from, which every event records, and the events as operators read them."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

from server.accounts.callers import Caller
from server.accounts.events import Event, EventFilter, EventPage
from server.accounts.ports import Store

NOTHING = EventPage(events=(), more=False)
LEASE = timedelta(seconds=10)
AT_ONCE = 200


class Origin(NamedTuple):
    """Where a call came from: the peer's address, and the id that the caller gave the request, or we did."""

    peer: str = ""
    request_id: str = ""


NOWHERE = Origin()
"""The service itself."""

ORIGIN: ContextVar[Callable[[], Origin]] = ContextVar("origin", default=lambda: NOWHERE)
"""Set at the edge for each call, and read only where an event is recorded: most calls record none."""


class AuditLog:
    """Events as one caller may see them: what is outside its profiles and platforms does not exist for it.

    An event whose personal data is erased belongs to no profile any more: only callers see it who see all of them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(self, caller: Caller, which: EventFilter, *, size: int, after: str) -> EventPage:
        """The next `size` events, the newest first; `after` is the cursor of the last one seen, or empty."""
        if which.profile_id is not None and not caller.sees_profile(which.profile_id):
            return NOTHING
        seen = replace(
            which,
            profile_prefixes=("",) if which.profile_id is not None else caller.profiles,
            platforms=caller.platforms,
        )
        return await self._store.list_events(seen, after=after, size=size)


class Linker:
    """Links committed events into the hash chain, every second; of several processes the one that holds the lease."""

    def __init__(self, store: Store, owner: str) -> None:
        self._store = store
        self._owner = owner

    async def work_off(self) -> int:
        """Links all events that are not linked yet, unless another process has the lease; how many."""
        linked = 0
        while some := await self._store.link_events(owner=self._owner, lease=LEASE, limit=AT_ONCE):
            linked += some
            if some < AT_ONCE:
                break
        return linked


def cursor(event: Event) -> str:
    """Names the place of an event in a list."""
    return f"{event.time.isoformat()} {event.id}"
