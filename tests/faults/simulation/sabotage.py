"""Mistakes that the domain could make, one at a time, so that the judge can be seen to notice them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from server.accounts import attempt
from server.accounts.attempt import Attempts
from server.accounts.grants import Commit, GrantState
from server.accounts.model import Status, StatusReason
from server.accounts.refresh import Refresher
from server.storage import accounts, claims, grants, revocations
from server.storage.journal import FileJournal
from server.storage.schema import AccountRow, GrantRow
from server.storage.store import Store
from server.storage.swap import swap


def claims_nothing(patch: pytest.MonkeyPatch) -> None:
    """Grants are taken and left as they were, for anybody else to take."""
    claim = claims.claim

    def look_only(tx: Any, *arguments: Any) -> Any:
        claimed = claim(tx, *arguments)
        for grant in claimed:
            GrantRow.update(state=grant.found, sends=grant.sends, due_time=tx.now_us).where(
                GrantRow.id == grant.id
            ).execute(tx.database)
        return claimed

    patch.setattr(claims, "claim", look_only)


def retries_a_lost_answer_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attempt, "replay_time", lambda token_set, now, **_: now)


def retries_as_often_as_it_takes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attempt, "MOST_SENDS", 9)


def takes_an_old_lease_for_its_own(patch: pytest.MonkeyPatch) -> None:
    """A claim that ran out is sent again as if nothing had been sent."""
    go_on = Attempts._without_sending

    def forget(self: Attempts, grant: Any, lane: Any) -> Any:
        return go_on(self, dataclasses.replace(grant, found=GrantState.READY), lane)

    patch.setattr(Attempts, "_without_sending", forget)


def ignores_the_generation(patch: pytest.MonkeyPatch) -> None:
    """Whoever comes last is right."""

    def overwrite(tx: Any, group: Any) -> list[bool]:
        for refreshed in group:
            mine = (GrantRow.id == refreshed.grant_id) & GrantRow.state.not_in([GrantState.DEAD, GrantState.REVOKING])
            GrantRow.update(generation=refreshed.generation).where(mine).execute(tx.database)
        return swap(tx, group)

    patch.setattr(grants, "swap", overwrite)


def drops_the_journal(patch: pytest.MonkeyPatch) -> None:
    async def keep(self: FileJournal, refreshed: Any) -> None:
        return None

    patch.setattr(FileJournal, "keep", keep)


def never_replays_the_journal(patch: pytest.MonkeyPatch) -> None:
    async def replay(self: Refresher) -> bool:
        return True

    patch.setattr(Refresher, "replay", replay)


def calls_a_grant_dead_at_the_first_lost_answer(patch: pytest.MonkeyPatch) -> None:
    def give_up(self: Attempts, grant: Any, lane: Any, error: Any) -> Any:
        return self._give_up(grant, StatusReason.REFRESH_OUTCOME_LOST, error.text)

    patch.setattr(Attempts, "_unknown", give_up)


def calls_a_grant_dead_when_the_platform_is_busy(patch: pytest.MonkeyPatch) -> None:
    def give_up(self: Attempts, grant: Any, lane: Any, error: Any) -> Any:
        return self._give_up(grant, StatusReason.REFRESH_REJECTED, error.text)

    patch.setattr(Attempts, "_later", give_up)


def never_says_expired(patch: pytest.MonkeyPatch) -> None:
    """The grant is dead, and its account goes on as if it were not."""
    patch.setattr(accounts, "expire", lambda *_, **__: None)


def lets_a_late_pair_of_a_revoked_account_live(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(revocations, "add_for_retired", lambda tx, grant, token_set: None)


def brings_a_revoked_account_back(patch: pytest.MonkeyPatch) -> None:
    """A refresh that was under way when its account was revoked makes it ACTIVE again."""
    not_stored = grants.not_stored

    def revive(tx: Any, refreshed: Any) -> Commit:
        row = grants.get(tx, refreshed.grant_id)
        if row is not None and row.state == GrantState.REVOKING:
            AccountRow.update(status=Status.ACTIVE.value).where(AccountRow.id == row.account_id).execute(tx.database)
        return not_stored(tx, refreshed)

    patch.setattr(grants, "not_stored", revive)


def gives_up_a_revocation_that_failed_once(patch: pytest.MonkeyPatch) -> None:
    async def forget(self: Store, claimed: Any, **_: Any) -> None:
        await self.finish_revocation(claimed)

    patch.setattr(Store, "retry_revocation", forget)


SABOTAGES: dict[Callable[[pytest.MonkeyPatch], None], str] = {
    claims_nothing: "was sent",
    retries_a_lost_answer_at_once: "long before its access token ends",
    retries_as_often_as_it_takes: "for the 3th time",
    takes_an_old_lease_for_its_own: "was sent again",
    ignores_the_generation: "generation",
    drops_the_journal: "lives",
    never_replays_the_journal: "lives",
    calls_a_grant_dead_at_the_first_lost_answer: "EXPIRED",
    calls_a_grant_dead_when_the_platform_is_busy: "EXPIRED",
    never_says_expired: "silently dead",
    lets_a_late_pair_of_a_revoked_account_live: "is REVOKED and",
    brings_a_revoked_account_back: "without a connect",
    gives_up_a_revocation_that_failed_once: "is REVOKED and",
}
"""Each mistake, and what the judge says to it."""
