"""After a restore: what a suspect grant may do, what operators decide, and what the journal knows better."""

from datetime import timedelta

import pytest

from server.accounts.errors import PlatformUnavailable
from server.accounts.grants import GrantState, Refreshed, TokenSet
from server.accounts.model import PlatformRevocation, Status, StatusReason
from server.storage.restored import Suspects
from tests.accounts.conftest import House
from tests.accounts.due import DUE
from tests.accounts.script import CALLER, OPERATOR

LATER = timedelta(days=1)
HOUR = timedelta(hours=1)


async def restore(house: House, multiple_use: tuple[str, ...] = ()) -> int:
    suspects = 0
    while some := await house.store.suspect(multiple_use, limit=2):
        suspects += some
    await house.store.put_to_use(operator="ada", suspects=suspects, known_us=0)
    return suspects


async def state(house: House, account_id: str) -> GrantState:
    grant = await house.store.grant((await house.account(account_id)).grant_id)
    assert grant is not None
    return grant.state


async def test_d6_a_suspect_grant_is_not_refreshed_when_it_is_due_nor_on_demand(house: House) -> None:
    account = await house.connect()
    assert await restore(house) == 1
    assert await house.fresh.refresh(CALLER, account.id, None) == (await house.account(account.id), False)
    house.clock.offset += DUE
    assert await house.refresher.run_once() == 0
    house.clock.offset += LATER
    assert await house.refresher.run_once() == 0
    with pytest.raises(PlatformUnavailable, match="restored from a backup"):
        await house.fresh.refresh(CALLER, account.id, None)
    assert house.platform.count("refresh") == 0
    assert (await house.account(account.id)).status is Status.ACTIVE


async def test_d6_the_access_token_of_a_suspect_grant_is_served_while_it_lives(house: House) -> None:
    account = await house.connect()
    await restore(house)
    house.clock.offset += HOUR
    served = await house.fresh.token_set(await house.account(account.id), timedelta(minutes=30), "web")
    assert served.access_token.reveal() == "at-1"


async def test_d6_whatever_was_under_way_at_the_backup_is_suspect_and_what_had_ended_stays_as_it_was(
    house: House,
) -> None:
    accounts = [await house.connect(profile_id=f"p{number}") for number in range(4)]
    revoked = await house.connect(profile_id="p9")
    await house.revoker.revoke(CALLER, revoked.id)
    house.clock.offset += DUE
    # ready, sent, unknown: claimed by a process of which nothing is heard any more
    await house.store.claim_due("twitter", owner="gone", lease=timedelta(minutes=1), limit=2)
    assert await restore(house) == 4
    assert {await state(house, each.id) for each in accounts} == {GrantState.SUSPECT}
    assert await house.store.free_dead_leases() == 0
    house.clock.offset += LATER
    assert await house.refresher.run_once() == 0
    assert (await house.account(revoked.id)).status is Status.REVOKED


async def test_d6_grants_of_platforms_whose_refresh_tokens_are_not_replaced_go_on(house: House) -> None:
    await house.connect()
    assert await restore(house, multiple_use=("twitter",)) == 0
    house.clock.offset += DUE
    assert await house.refresher.run_once() == 1


async def test_d6_the_story_of_a_suspect_account_says_that_an_operator_decides(house: House) -> None:
    account = await house.connect()
    await restore(house)
    story = await house.explainer.explain(OPERATOR, account.id)
    assert "operator decides" in story.next_step and story.next_time is None
    assert story.grant is not None and story.grant.state is GrantState.SUSPECT
    assert await house.store.suspects() == [("twitter", 1, 0)]
    house.clock.offset += LATER
    assert await house.store.suspects() == [("twitter", 0, 1)]
    assert (await house.store.census())["twitter", "suspect"] == 1


async def test_d6_a_try_that_an_operator_asks_for_is_the_only_one_and_brings_back_what_was_not_spent(
    house: House,
) -> None:
    spent, live = [await house.connect(profile_id=f"p{number}") for number in range(2)]
    await restore(house)
    house.platform.dead_tokens.add("rt-1")
    house.clock.offset += HOUR
    assert await house.store.try_suspects(Suspects(), operator="ada", limit=10) == 2
    assert await house.refresher.run_once() == 0, "while the access token lives nothing is risked"
    house.clock.offset += timedelta(minutes=56)
    assert await house.refresher.run_once() == 2
    assert await state(house, live.id) is GrantState.READY
    lost = await house.account(spent.id)
    assert (lost.status, lost.status_reason) == (Status.EXPIRED, StatusReason.REFRESH_OUTCOME_LOST)
    house.clock.offset += LATER
    await house.refresher.run_once()
    assert [detail for kind, detail in house.platform.calls if kind == "refresh"].count("rt-1") == 1


async def test_d6_an_operator_chooses_by_platform_by_grant_and_by_what_has_ended(house: House) -> None:
    first = await house.connect()
    house.clock.offset += timedelta(hours=3)
    second = await house.connect(profile_id="p2")
    await restore(house)
    assert await house.store.count_suspects(Suspects(platform="linkedin")) == 0
    assert (
        await house.store.try_suspects(
            Suspects(platform="twitter", grant_ids=(second.grant_id,)), operator="ada", limit=10
        )
        == 1
    )
    assert await state(house, first.id) is GrantState.SUSPECT
    assert await house.store.try_suspects(Suspects(ended=False), operator="ada", limit=10) == 0
    assert await house.store.give_up_suspects(Suspects(ended=True), operator="ada", limit=10) == 1
    assert await state(house, first.id) is GrantState.DEAD


async def test_d6_what_is_given_up_expires_without_a_request_and_comes_back_by_a_connect(house: House) -> None:
    account = await house.connect()
    await restore(house)
    assert await house.store.give_up_suspects(Suspects(), operator="ada", limit=10) == 1
    lost = await house.account(account.id)
    assert (lost.status, lost.status_reason) == (Status.EXPIRED, StatusReason.REFRESH_OUTCOME_LOST)
    assert house.platform.count("refresh") == 0
    [*_, expired] = await house.store.events_of(account.id, limit=10)
    assert (expired.kind, expired.caller) == ("expired", "operator ada")
    again = await house.connect()
    assert (again.id, again.status) == (account.id, Status.ACTIVE)


async def test_d6_revoking_a_suspect_account_revokes_at_the_platform(house: House) -> None:
    account = await house.connect()
    await restore(house)
    revoked = await house.revoker.revoke(CALLER, account.id)
    assert revoked.platform_revocation is PlatformRevocation.CONFIRMED
    assert [detail for kind, detail in house.platform.calls if kind == "revoke"] == ["rt-1", "at-1"]


def journaled(token_set: TokenSet, grant_id: str, generation: int, due: timedelta) -> Refreshed:
    """What the journal holds of a refresh whose answer the database did not take."""
    assert token_set.expire_time is not None
    due_time = token_set.expire_time - due
    return Refreshed(grant_id, "p1", "twitter", generation, token_set.scopes, token_set, due_time)


@pytest.mark.parametrize("behind", [0, 3])
async def test_d7_a_journal_entry_newer_than_the_backup_brings_its_grant_back(house: House, behind: int) -> None:
    account = await house.connect()
    newest = await house.platform.mint(account.scopes)
    await house.journal.keep(journaled(newest, account.grant_id, 1 + behind, timedelta(minutes=30)))
    await restore(house)
    assert await house.refresher.replay()
    grant = await house.store.grant(account.grant_id)
    assert grant is not None
    assert (grant.state, grant.generation, house.journal.depth) == (GrantState.READY, 2 + behind, 0)
    assert await house.store.token_set(account.grant_id) == newest
    house.clock.offset += DUE
    assert await house.refresher.run_once() == 1
    assert [detail for kind, detail in house.platform.calls if kind == "refresh"] == ["rt-2"]


async def test_putting_a_backup_to_use_and_trying_suspects_are_in_the_audit(house: House) -> None:
    await house.connect()
    await restore(house)
    assert await house.store.try_suspects(Suspects(), operator="ada", limit=10) == 1
    assert await house.store.try_suspects(Suspects(), operator="ada", limit=10) == 0
    found = await house.store.verify_chain()
    assert found.broken is None
    told = [(each.kind, each.caller, each.facts) for each in found.tail]
    assert told.count(("suspects_tried", "operator ada", '{"suspects":1}')) == 1
    assert "restored" in {kind for kind, _, _ in told}
