"""Reading accounts: what a caller sees, one at a time and in pages."""

from __future__ import annotations

from collections.abc import Collection

from server.accounts.callers import Caller, Permission
from server.accounts.errors import AccountNotFound, CallerNotPermitted, UnknownPlatform
from server.accounts.grants import AtHand
from server.accounts.model import Account, AccountFilter, Page, Status
from server.accounts.ports import Store

NOTHING = Page(accounts=(), more=False)


class Reader:
    """Accounts as one caller sees them: what is outside its profiles and platforms does not exist for it."""

    def __init__(self, store: Store, platforms: Collection[str]) -> None:
        self._store = store
        self._platforms = platforms

    async def get(self, caller: Caller, account_id: str) -> Account:
        """Raises AccountNotFound for an account that is missing and, in the same words, for one it may not see."""
        account = await self._store.account(account_id)
        if account is None or not caller.sees(account):
            raise AccountNotFound(account_id)
        return account

    async def get_at_hand(self, caller: Caller, account_id: str) -> tuple[Account, AtHand]:
        """As `get`, with what the account is used with."""
        found = await self._store.account_at_hand(account_id)
        if found is None or not caller.sees(found[0]):
            raise AccountNotFound(account_id)
        return found

    async def list(
        self,
        caller: Caller,
        *,
        profile_id: str | None,
        platform: str | None,
        statuses: frozenset[Status],
        size: int,
        after: str,
    ) -> Page:
        """The next `size` accounts with ids above `after`. Raises CallerNotPermitted, UnknownPlatform.

        Without a profile it lists all the profiles the caller sees, for which it needs `list_all`.
        """
        self.check(caller, profile_id=profile_id, platform=platform)
        if profile_id is not None and not caller.sees_profile(profile_id):
            return NOTHING
        if platform is not None and not caller.sees_platform(platform):
            return NOTHING
        which = AccountFilter(
            profile_id=profile_id,
            profile_prefixes=("",) if profile_id is not None else caller.profiles,
            platforms=frozenset({platform}) if platform is not None else caller.platforms,
            statuses=statuses,
        )
        return await self._store.list_accounts(which, after=after, size=size)

    def check(self, caller: Caller, *, profile_id: str | None, platform: str | None) -> None:
        """Whether the caller may ask for such accounts. Raises CallerNotPermitted, UnknownPlatform."""
        if profile_id is None and Permission.LIST_ALL not in caller.permissions:
            raise CallerNotPermitted(
                "profile_id may be left out only with the permission list_all", permission=Permission.LIST_ALL
            )
        if platform is not None and platform not in self._platforms:
            raise UnknownPlatform(platform, tuple(sorted(self._platforms)))
