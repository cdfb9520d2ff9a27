"""The facts that are recorded about accounts."""

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
    REFRESH_FAILED = "refresh_failed"
    EXPIRED = "expired"
    REVOKED = "revoked"
    PLATFORM_REVOCATION_CONFIRMED = "platform_revocation_confirmed"

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
        EventKind.REVOKED,
        EventKind.PLATFORM_REVOCATION_CONFIRMED,
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """One committed fact about an account."""

    number: int | None
    """Its place among all changes of accounts; None for facts that change none."""
    time: datetime
    kind: str
    caller: str
    """Who caused it; empty for the service itself."""
    facts: Mapping[str, Any]
