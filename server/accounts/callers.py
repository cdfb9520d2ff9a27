"""Callers: internal services, and what each may see and do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from server.accounts.model import Account
from server.accounts.routes import Route


class Permission(StrEnum):
    """What a caller may be allowed to do."""

    CONNECT = "connect"
    READ = "read"
    REFRESH = "refresh"
    REVOKE = "revoke"
    DELETE = "delete"
    ACT = "act"
    LIST_ALL = "list_all"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a caller may do; None is as much as it likes. Each process counts for itself."""

    rate: float | None = None
    """Calls a second."""
    accounts_a_minute: int | None = None
    """Distinct accounts that its calls name or are shown."""
    revokes_a_minute: int | None = None
    pending_connects: int | None = None
    """Connects that were begun and have not ended; all processes together."""
    watchers: int | None = None
    """Watches under way at once."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An internal service, by its credential, and what it may see and do."""

    name: str
    permissions: frozenset[Permission] = frozenset()
    profiles: tuple[str, ...] = ("",)
    """Prefixes of the profile ids it may see; the empty prefix is all of them."""
    platforms: frozenset[str] | None = None
    """The platforms it may see; None is all of them."""
    return_urls: frozenset[str] = frozenset()
    redirect_uris: frozenset[str] = frozenset()
    allow_shim_completion: bool = False
    limits: Limits = Limits()
    routes: Mapping[str, tuple[Route, ...]] = field(default_factory=dict)
    """The requests it may have sent on accounts' behalf, by platform; what is not named here is refused."""

    def route(self, platform: str, method: str, segments: tuple[str, ...]) -> Route | None:
        """Its first route that a request matches."""
        for route in self.routes.get(platform, ()):
            if route.matches(method, segments):
                return route
        return None

    def sees_profile(self, profile_id: str) -> bool:
        return profile_id.startswith(self.profiles)

    def sees_platform(self, platform: str) -> bool:
        return self.platforms is None or platform in self.platforms

    def sees(self, account: Account) -> bool:
        return self.sees_profile(account.profile_id) and self.sees_platform(account.platform)


def as_caller(operator: str) -> str:
    """How an operator is named where events name callers."""
    return f"operator {operator}"
