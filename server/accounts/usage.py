"""Usage: for what accounts were used, by whom and when, as callers may see it."""

from __future__ import annotations

from datetime import datetime

from server.accounts.audit import NOTHING
from server.accounts.callers import Caller
from server.accounts.events import USES, EventFilter, EventPage
from server.accounts.ports import Store
from server.accounts.read import Reader


class UsageLog:
    """The recorded uses of an account or of a profile's accounts."""

    def __init__(self, store: Store, reader: Reader) -> None:
        self._store = store
        self._reader = reader

    async def usage(self, caller: Caller, which: EventFilter, *, size: int, after: str) -> EventPage:
        """The next `size` entries, the newest first; `after` is the `audit.cursor` of the last one seen, or empty.

        Raises AccountNotFound for an account that the caller may not see. Of a profile that it may not see there is
        no usage.
        """
        if which.account_id is not None:
            await self._reader.get(caller, which.account_id)
        elif which.profile_id is None or not caller.sees_profile(which.profile_id):
            return NOTHING
        return await self._store.list_events(which, after=after, size=size)


def usage_of(
    caller: Caller,
    *,
    account_id: str | None,
    profile_id: str | None,
    start_time: datetime | None,
    end_time: datetime | None,
) -> EventFilter:
    """The filter for what a caller asks for: uses alone, of platforms that it may see."""
    return EventFilter(
        account_id=account_id,
        profile_id=profile_id,
        kinds=USES,
        start_time=start_time,
        end_time=end_time,
        platforms=caller.platforms,
    )
