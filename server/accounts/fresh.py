"""Fresh token sets: what somebody who is about to use an account needs, refreshed on demand where that is due.

A failed early refresh fails nobody whose access token still lives.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from server.accounts.attempt import JOURNALED
from server.accounts.callers import Caller
from server.accounts.errors import (
    AccountExpired,
    AccountNotFound,
    AccountRevoked,
    PlatformPaused,
    PlatformUnavailable,
    RateLimited,
    Reconnect,
    StoreUnavailable,
)
from server.accounts.gate import Gate
from server.accounts.grants import AtHand, GrantRecord, TokenSet
from server.accounts.model import Account, Status
from server.accounts.ports import Store
from server.accounts.read import Reader
from server.accounts.refresh import NOT_STORED, Refresher

SOONEST_RETRY = timedelta(seconds=1)
RETRY = timedelta(seconds=30)


class FreshTokens:
    """Sees that an account's access token lives for as long as is needed."""

    def __init__(self, store: Store, reader: Reader, refresher: Refresher, gates: Mapping[str, Gate]) -> None:
        self._store = store
        self._reader = reader
        self._refresher = refresher
        self._gates = gates

    async def refresh(
        self, caller: Caller, account_id: str, min_remaining_lifetime: timedelta | None
    ) -> tuple[Account, bool]:
        """The account as it is now, and whether this brought a new token set.

        `min_remaining_lifetime` None asks for a refresh whatever is left of the access token; `min_interval` spaces
        them all the same. Raises AccountNotFound, AccountExpired, AccountRevoked; and where the access token has ended
        and none could be had, PlatformPaused, PlatformUnavailable, StoreUnavailable, and RateLimited
        when too many calls wait already.
        """
        account = await self._reader.get(caller, account_id)
        refreshed = await self._ensure(account, min_remaining_lifetime, caller.name)
        return await self._reader.get(caller, account_id), refreshed

    async def token_set(
        self, account: Account, min_remaining_lifetime: timedelta, caller: str, at_hand: AtHand | None = None
    ) -> TokenSet:
        """The newest token set of an account, refreshed if its access token ends too soon. Raises as `refresh` does.

        `at_hand` is what was read with the account, if anything was.
        """
        check_usable(account)
        expire_time = account.access_token_expire_time
        if expire_time is not None and expire_time <= await self._store.now() + min_remaining_lifetime:
            await self._ensure(account, min_remaining_lifetime, caller)
            at_hand = None
        token_set = at_hand() if at_hand is not None else await self._store.token_set(account.grant_id)
        if token_set is None:
            raise await self._replaced(account)
        return token_set

    async def newer(self, account: Account, refused: TokenSet) -> tuple[Account, TokenSet | None]:
        """The account as it is by now, and its token set if that is not the refused one any more.

        Between a request and its 401 the account may have been refreshed, connected again, expired or revoked. Raises
        AccountExpired, AccountRevoked, AccountNotFound.
        """
        present = await self._reread(account)
        check_usable(present)
        newest = await self._store.token_set(present.grant_id)
        return present, None if newest is None or newest.access_token == refused.access_token else newest

    async def another(self, account: Account, refused: TokenSet, caller: str) -> tuple[Account, TokenSet | None]:
        """Refreshes, and then as `newer`; raises as `refresh` does, also where the refresh showed that the grant is
        dead."""
        await self._ensure(account, None, caller)
        return await self.newer(account, refused)

    async def _reread(self, account: Account) -> Account:
        present = await self._store.account(account.id)
        if present is None:
            raise AccountNotFound(account.id)
        return present

    async def _ensure(self, account: Account, min_remaining_lifetime: timedelta | None, caller: str) -> bool:
        check_usable(account)
        grant = await self._grant(account)
        now = await self._store.now()
        if min_remaining_lifetime is not None and grant.lives_at(now + min_remaining_lifetime):
            return False
        outcome = ""
        if grant.refreshable and account.platform in self._gates:
            try:
                outcome = await self._refresher.on_demand(grant, caller)
            except RateLimited:
                if grant.lives_at(now):
                    return False
                raise
            after = await self._store.grant(grant.id)
            if after is not None and after.generation > grant.generation:
                return True
        if grant.lives_at(await self._store.now()):
            return False
        if outcome in (NOT_STORED, JOURNALED):
            raise StoreUnavailable("the database takes no writes, so nothing can be refreshed")
        raise await self._why_not(account)

    async def _grant(self, account: Account) -> GrantRecord:
        grant = await self._store.grant(account.grant_id)
        if grant is None:
            raise await self._replaced(account)
        return grant

    async def _replaced(self, account: Account) -> Exception:
        """What to tell where the account's grant is gone: it was connected again or revoked this instant."""
        check_usable(await self._reread(account))
        return PlatformUnavailable(account.platform, "the grant was replaced meanwhile", SOONEST_RETRY)

    async def _why_not(self, account: Account) -> Exception:
        """Why an account whose access token has ended cannot be used now."""
        present = await self._reread(account)
        check_usable(present)
        gate = self._gates.get(account.platform)
        if gate is not None and gate.paused:
            return PlatformPaused(account.platform, gate.paused)
        if gate is not None and gate.held:
            return PlatformUnavailable(account.platform, gate.held, max(gate.opens_in, SOONEST_RETRY))
        grant = await self._store.grant(present.grant_id)
        why = grant.last_error if grant is not None else ""
        wait = retry_after(grant.due_time if grant is not None else None, await self._store.now())
        return PlatformUnavailable(account.platform, why or "the refresh brought nothing", wait)


def check_usable(account: Account) -> None:
    """Raises AccountExpired, AccountRevoked."""
    if account.status is Status.REVOKED:
        raise AccountRevoked(account.id)
    if account.status is Status.EXPIRED:
        raise AccountExpired(account.status_reason.name, reconnect(account))


def reconnect(account: Account, *more_scopes: str) -> Reconnect:
    """Asks the user for all that was asked for before, and for `more_scopes`."""
    scopes = dict.fromkeys((*account.scopes, *account.missing_scopes, *more_scopes))
    return Reconnect(account.profile_id, account.platform, account.id, tuple(scopes))


def retry_after(due_time: datetime | None, now: datetime) -> timedelta:
    return RETRY if due_time is None else max(due_time - now, SOONEST_RETRY)
