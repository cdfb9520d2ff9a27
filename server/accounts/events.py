"""The facts that are recorded about accounts, and which of them are personal data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final


class EventKind(StrEnum):
    """The facts that are recorded about accounts."""

    CONNECT_BEGUN = "connect_begun"
    CONNECT_FAILED = "connect_failed"
    CONNECTED = "connected"
    RECONNECTED = "reconnected"
    IDENTITY_CHANGED = "identity_changed"
    SCOPES_CHANGED = "scopes_changed"
    ACCOUNT_USED = "account_used"
    """A caller had a request sent on the account's behalf; recorded before it was."""
    ACCOUNT_USE_FAILED = "account_use_failed"
    """How a use ended that ended in anything but an answer below 400; its fact `use_id` names the use."""
    REFRESH_REQUESTED = "refresh_requested"
    """A caller asked for a refresh, which is about to be sent."""
    REFRESH_FAILED = "refresh_failed"
    EXPIRED = "expired"
    EXPIRING_SOON = "expiring_soon"
    """Its grant cannot be refreshed, and ends in a few days: the user has to connect again by then."""
    REVOKED = "revoked"
    PLATFORM_REVOCATION_CONFIRMED = "platform_revocation_confirmed"
    PLATFORM_REVOCATION_GIVEN_UP = "platform_revocation_given_up"
    """The platform has not confirmed in a month of trying: tokens were erased that may be live there."""
    PLATFORM_PAUSED = "platform_paused"
    PLATFORM_RESUMED = "platform_resumed"
    RESTORED = "restored"
    """A backup was put to use; its fact `suspects` says how many grants may not be refreshed until an operator says so.
    """
    SUSPECTS_TRIED = "suspects_tried"
    REPLIES_READ_AGAIN = "replies_read_again"
    """An operator is about to have `count` answers stored that could not be read when they came."""
    KEY_ADDED = "key_added"
    """An operator is about to add a key-encryption key to the key file; its fact `key` is the id."""
    KEY_ACTIVATED = "key_activated"
    KEY_RETIRED = "key_retired"
    REWRAP_BEGUN = "rewrap_begun"
    """An operator is about to have `count` values wrapped anew by the key `key`."""
    PROCESS_FORGOTTEN = "process_forgotten"
    """What a process said about its keys does not count any more."""
    CALLER_BLOCKED = "caller_blocked"
    CALLER_UNBLOCKED = "caller_unblocked"
    CALL_REFUSED = "call_refused"
    """Calls of a caller were refused; its facts say which method, how many, and what was missing or wrong."""
    ERASURE_REQUESTED = "erasure_requested"
    ACCOUNT_ERASED = "account_erased"
    PERSONAL_DATA_ERASED = "personal_data_erased"
    """The personal part of earlier events is erased; its fact `events` names them."""
    AUDIT_PRUNED = "audit_pruned"
    """The oldest events are erased; its facts `position` and `link` say where the chain begins since then."""

    @property
    def changes_account(self) -> bool:
        """Whether watchers are told: such events are numbered in commit order."""
        return self in ACCOUNT_CHANGES


ACCOUNT_CHANGES: Final = frozenset(
    {
        EventKind.CONNECTED,
        EventKind.RECONNECTED,
        EventKind.IDENTITY_CHANGED,
        EventKind.SCOPES_CHANGED,
        EventKind.EXPIRED,
        EventKind.EXPIRING_SOON,
        EventKind.REVOKED,
        EventKind.PLATFORM_REVOCATION_CONFIRMED,
        EventKind.ACCOUNT_ERASED,
    }
)

KEPT_FACTS: Final = frozenset(
    {
        "attempt",
        "backup_time",
        "blocked",
        "connect_id",
        "count",
        "due_time",
        "end_time",
        "erasure_id",
        "events",
        "field",
        "key",
        "limit",
        "link",
        "method",
        "missing_scopes",
        "permission",
        "platform_revocation",
        "position",
        "process",
        "reason",
        "route",
        "scopes",
        "state",
        "status",
        "suspects",
        "use_id",
    }
)
"""The facts that stay when personal data is erased. Whatever is not named here counts as personal."""

DONE: Final = "done"
"""The result of what succeeded; what did not has a reason."""

SENT: Final = "sent"
"""The result of a use that is about to be sent."""

USES: Final = frozenset({EventKind.ACCOUNT_USED, EventKind.ACCOUNT_USE_FAILED})


@dataclass(frozen=True, slots=True)
class Event:
    """One committed fact: who did what to which account, and with what result."""

    number: int | None
    """Its place among all changes of accounts; None for facts that change none."""
    time: datetime
    kind: str
    caller: str
    """Who caused it; empty for the service itself."""
    facts: Mapping[str, Any]
    id: str = ""
    account_id: str | None = None
    profile_id: str = ""
    """Empty where it concerns none, and once it is erased."""
    platform: str = ""
    peer: str = ""
    """The address that the call came from; empty for the service itself."""
    request_id: str = ""
    result: str = DONE
    position: int | None = None
    """Its place in the hash chain; None until it is linked, a second or so after it was recorded."""


@dataclass(slots=True)
class Refusal:
    """A call that was refused, and how many of its kind were."""

    caller: str
    method: str
    reason: str
    facts: Mapping[str, str]
    """Which permission, field or limit it was."""
    account_id: str | None
    """The account that the first of them named, whether there is such a one or not."""
    peer: str
    request_id: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a list shows. None means all."""

    account_id: str | None = None
    profile_id: str | None = None
    caller: str | None = None
    kind: str | None = None
    start_time: datetime | None = None
    """The first instant that is shown."""
    end_time: datetime | None = None
    """The first instant that is not shown any more."""
    profile_prefixes: tuple[str, ...] = ("",)
    platforms: frozenset[str] | None = None
    kinds: frozenset[EventKind] | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, the newest first, and whether more follow."""

    events: tuple[Event, ...]
    more: bool
