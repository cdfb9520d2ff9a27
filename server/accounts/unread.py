"""Unread replies: what a platform answered and an earlier version could not read is read again by a later one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from server.accounts.grants import Commit, GrantState, Refreshed, TokenSet, UnreadReplies
from server.accounts.ports import Platform, Store


@dataclass(frozen=True, slots=True)
class Reading:
    """One grant with unread replies, and what this version makes of them."""

    grant_id: str
    platform: str
    state: GrantState
    sizes: tuple[int, ...]
    """Of the replies, in characters."""
    token_set: TokenSet | None


class UnreadReader:
    """Reads again, and brings what it finds into the grants."""

    def __init__(self, store: Store, platforms: Mapping[str, Platform]) -> None:
        self._store = store
        self._platforms = platforms

    async def look(self) -> list[Reading]:
        """Changes nothing."""
        return [self._reading(unread) for unread in await self._store.unread()]

    async def apply(self) -> dict[str, Commit]:
        """Stores what can be read now, by the same compare-and-swap as a refresh; what became of it by grant id.

        LOST: the grant has a newer token set by now, or is dead; in the latter case what was read is revoked.
        """
        return {
            unread.grant_id: await self._store.commit_refresh(refreshed)
            for unread in await self._store.unread()
            if (refreshed := self._refreshed(unread)) is not None
        }

    def _reading(self, unread: UnreadReplies) -> Reading:
        sizes = tuple(len(reply.reveal()) for reply in unread.replies)
        return Reading(unread.grant_id, unread.platform, unread.state, sizes, self._read(unread))

    def _read(self, unread: UnreadReplies) -> TokenSet | None:
        """The newest that can be read."""
        platform = self._platforms.get(unread.platform)
        if platform is None:
            return None
        found = (platform.read_again(reply, unread.token_set) for reply in reversed(unread.replies))
        return next((token_set for token_set in found if token_set is not None), None)

    def _refreshed(self, unread: UnreadReplies) -> Refreshed | None:
        token_set = self._read(unread)
        if token_set is None:
            return None
        return Refreshed(
            grant_id=unread.grant_id,
            profile_id=unread.profile_id,
            platform=unread.platform,
            generation=unread.generation,
            scopes_before=unread.token_set.scopes,
            token_set=token_set,
            due_time=token_set.expire_time,
        )
