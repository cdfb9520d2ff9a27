"""Erasing: a profile is deleted for good, and what is kept of revoked accounts and of the audit has an end.

What is left of an erased account is its receipt and its events without their personal part: its id, its platform, and
what became of its tokens there. Tokens wait in the outbox, without the profile's id, until the platform has confirmed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta

from server.accounts.callers import Caller
from server.accounts.errors import CallerNotPermitted
from server.accounts.model import AccountFilter, Erasure, PlatformRevocation, Receipt
from server.accounts.ports import Platform, Store
from server.accounts.revoke import Revoker, revocation_at

log = logging.getLogger(__name__)

AT_ONCE = 100


class Eraser:
    """Deletes profiles. Each step is one transaction, and safe to repeat; the calendar goes on with what was begun."""

    def __init__(self, store: Store, platforms: Mapping[str, Platform], revoker: Revoker) -> None:
        self._store = store
        self._platforms = platforms
        self._revoker = revoker

    async def delete_profile(self, caller: Caller, profile_id: str) -> Receipt:
        """Erases whatever there is of the profile; repeating it returns the present outcome. Raises CallerNotPermitted.

        The platforms are asked once, for at most 3 seconds, and then in the background.
        """
        if not caller.sees_profile(profile_id):
            raise CallerNotPermitted(f"caller {caller.name} may not use this profile_id", field="profile_id")
        if caller.platforms is not None:
            # Part of a profile is not to be left behind, nor may the answer tell whether there is any.
            raise CallerNotPermitted(
                f"caller {caller.name} may not use all platforms, so it cannot delete a profile", field="profile_id"
            )
        erasure = await self._store.begin_erasure(profile_id, caller=caller.name)
        await self._erase(erasure)
        receipt = await self._store.receipt(erasure.id)
        waiting = [
            (each.platform, each.account_id)
            for each in receipt.accounts
            if each.platform_revocation is PlatformRevocation.PENDING
        ]
        await self._revoker.ask(waiting)
        return await self._store.receipt(erasure.id)

    async def work_off(self) -> int:
        """Goes on with erasures that were begun, and ends those of which nothing is left; how many it looked at."""
        erasures = await self._store.open_erasures(limit=AT_ONCE)
        for erasure in erasures:
            await self._erase(erasure)
            await self._store.settle_erasure(erasure)
        return len(erasures)

    async def _erase(self, erasure: Erasure) -> None:
        after, more = "", True
        while more:
            page = await self._store.list_accounts(AccountFilter(erasure.profile_id), after=after, size=AT_ONCE)
            for account in page.accounts:
                after = account.id
                # One that came into being since then belongs to a new consent.
                if account.create_time <= erasure.create_time:
                    platform = self._platforms.get(account.platform)
                    await self._store.erase_account(
                        account.id,
                        erasure,
                        **revocation_at(platform),
                    )
            more = page.more
        while await self._store.erase_traces(erasure):
            pass
        await self._store.wipe()


class Retention:
    """What has been kept for long enough is erased: revoked accounts, and the oldest events of the audit."""

    def __init__(self, store: Store, *, revoked_accounts: timedelta, audit: timedelta) -> None:
        self._store = store
        self._revoked_accounts = revoked_accounts
        self._audit = audit

    async def work_off(self) -> None:
        now = await self._store.now()
        accounts = events = 0
        while some := await self._store.erase_revoked(before=now - self._revoked_accounts, limit=AT_ONCE):
            accounts += some
        while some := await self._store.prune_audit(before=now - self._audit, limit=AT_ONCE):
            events += some
        if accounts or events:
            await self._store.wipe()
            log.info("kept for long enough, erased", extra={"accounts": accounts, "events": events})
