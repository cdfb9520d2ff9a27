"""Changes of accounts in the order of their commits, and which of them a watcher is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from server.accounts.callers import Caller
from server.accounts.errors import ResumeTokenTooOld
from server.accounts.events import EventKind
from server.accounts.model import Account, StatusReason

TOLD: Final = frozenset(
    {
        EventKind.CONNECTED,
        EventKind.RECONNECTED,
        EventKind.IDENTITY_CHANGED,
        EventKind.SCOPES_CHANGED,
        EventKind.EXPIRED,
        EventKind.EXPIRING_SOON,
        EventKind.REVOKED,
        EventKind.ACCOUNT_ERASED,
    }
)
"""The kinds that watchers are told; what else is numbered shows in no account."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place among all changes: the last one before it, by its number and the id of its event.

    The id tells a database from one that was restored and has given the number to another change since. It is empty
    where the event is not there: before the first change, and once it is pruned.
    """

    number: int
    event_id: str


BEGINNING: Final = Mark(0, "")


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One committed change of an account."""

    mark: Mark
    kind: str
    time: datetime
    account_id: str
    platform: str
    reason: StatusReason
    """Why it is EXPIRED, where that is the change."""
    account: Account | None
    """As it is by now, which may show later changes already; None once it is erased."""
    profile_id: str = ""
    """Whose account was erased, as long as that is known."""
    profile_digest: str = ""
    """The keyed digest of that profile, which a deletion leaves behind."""

    @property
    def erases(self) -> bool:
        return self.kind == EventKind.ACCOUNT_ERASED


@dataclass(frozen=True, slots=True)
class View:
    """Which accounts a watcher is told of: those of a profile, or all that its caller may see."""

    caller: Caller
    profile_id: str | None
    platform: str | None
    profile_digest: str = ""
    """That of `profile_id`."""

    def sees(self, change: Change) -> bool:
        """Whether the watcher is told. Raises ResumeTokenTooOld where nobody knows any more.

        A change of an account that is gone by now is not told: that it was erased is, a little later.
        """
        if change.kind not in TOLD or not self._sees_platform(change.platform):
            return False
        if change.account is not None:
            return self._sees_profile(change.account.profile_id)
        return change.erases and self._saw(change)

    def _sees_platform(self, platform: str) -> bool:
        return self.platform in (None, platform) and self.caller.sees_platform(platform)

    def _sees_profile(self, profile_id: str) -> bool:
        return self.profile_id in (None, profile_id) and self.caller.sees_profile(profile_id)

    def _saw(self, erased: Change) -> bool:
        if erased.profile_id:
            return self._sees_profile(erased.profile_id)
        if self.profile_id is None and "" in self.caller.profiles:
            return True
        if self.profile_id is not None and not self.caller.sees_profile(self.profile_id):
            return False
        if self.profile_id is not None and erased.profile_digest:
            return self.profile_digest == erased.profile_digest
        raise ResumeTokenTooOld("an account was erased, and nobody knows any more whose it was; list again")
