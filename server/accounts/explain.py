"""Explaining: the story of one account for operators, and what will happen to it next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from server.accounts.attempt import MOST_SENDS
from server.accounts.callers import Caller
from server.accounts.events import Event
from server.accounts.gate import Gate
from server.accounts.grants import GrantRecord, GrantState
from server.accounts.model import Account, PlatformRevocation, Status
from server.accounts.ports import Store
from server.accounts.read import Reader

MOST_EVENTS = 200


@dataclass(frozen=True, slots=True)
class Story:
    """An account, its grant, what happened to it, and what comes next."""

    account: Account
    grant: GrantRecord | None
    events: tuple[Event, ...]
    """The newest, oldest first."""
    next_step: str
    next_time: datetime | None
    """When the next step is due; None if nothing is, or nobody knows when."""
    platform_hold: str
    """Why this process sends nothing to the platform now; empty if it does."""


class Explainer:
    """Tells stories from the events table, the grant and the gate of the platform."""

    def __init__(self, store: Store, reader: Reader, gates: Mapping[str, Gate]) -> None:
        self._store = store
        self._reader = reader
        self._gates = gates

    async def explain(self, caller: Caller, account_id: str) -> Story:
        """Raises AccountNotFound, also for an account that this caller may not see."""
        account = await self._reader.get(caller, account_id)
        grant = await self._store.grant(account.grant_id) if account.grant_id else None
        events = await self._store.events_of(account_id, limit=MOST_EVENTS)
        next_step, next_time = what_next(account, grant)
        gate = self._gates.get(account.platform)
        hold = f"{account.platform} is not registered here" if gate is None else gate.held
        return Story(account, grant, events, next_step, next_time, hold)


def what_next(account: Account, grant: GrantRecord | None) -> tuple[str, datetime | None]:
    """The next step in words, and when it is due."""
    if account.status is Status.REVOKED:
        if account.platform_revocation is PlatformRevocation.PENDING:
            return "for a month its tokens are sent to the platform again until it confirms that they are revoked", None
        if account.platform_revocation is PlatformRevocation.GIVEN_UP:
            return "nothing; the platform has not confirmed in a month: the user can remove the app there", None
        return "nothing; connecting the account again renews it", None
    if account.status is Status.EXPIRED or grant is None:
        return "nothing; the user has to connect the account again", None
    return refresh_next(grant), grant.due_time


def refresh_next(grant: GrantRecord) -> str:
    if not grant.refreshable:
        return "the account expires when its access token ends: there is no refresh token"
    if grant.state is GrantState.SENT:
        return "a refresh is under way; should its process have died, it is over when its lease ends"
    if grant.state is GrantState.SUSPECT:
        return "nothing until an operator decides (grants suspect): since a restore its refresh token may be spent"
    if grant.state is GrantState.UNKNOWN and grant.sends >= MOST_SENDS:
        return "no answer came, twice: the account expires when its access token ends"
    if grant.state is GrantState.UNKNOWN:
        return "its refresh token may be spent: it is tried once more, and then the account is given up"
    return f"the refresh is tried again; it failed {grant.attempts} times" if grant.attempts else "it is refreshed"
