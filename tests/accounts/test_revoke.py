"""Revoking: asked of the platform until it confirms, whatever is under way."""

import asyncio
from datetime import timedelta

from server.accounts.errors import OutcomeUnknown, PlatformRefused
from server.accounts.model import Status
from tests.accounts.conftest import House
from tests.accounts.due import due_account
from tests.accounts.script import CALLER


async def test_revoking_sends_the_refresh_token_then_the_access_token(house: House) -> None:
    account = await house.connect()
    revoked = await house.revoker.revoke(CALLER, account.id)
    assert (revoked.status, revoked.platform_revocation.name) == (Status.REVOKED, "CONFIRMED")
    assert [detail for kind, detail in house.platform.calls if kind == "revoke"] == ["rt-1", "at-1"]
    again = await house.revoker.revoke(CALLER, account.id)
    assert again == revoked
    assert house.platform.count("revoke") == 2


async def test_a_fault_of_ours_holds_up_no_other_revocation(house: House) -> None:
    account = await house.connect()
    house.platform.answer_next("revoke", ValueError("a bug"))
    assert (await house.revoker.revoke(CALLER, account.id)).platform_revocation.name == "PENDING"
    house.clock.offset += timedelta(minutes=1)
    assert await house.revoker.work_off("twitter") == 1
    assert (await house.account(account.id)).platform_revocation.name == "CONFIRMED"


async def test_a_platform_that_does_not_confirm_is_asked_again_until_it_does(house: House) -> None:
    account = await house.connect()
    house.platform.answer_next("revoke", PlatformRefused("503", status=503), OutcomeUnknown("reset"))
    assert (await house.revoker.revoke(CALLER, account.id)).platform_revocation.name == "PENDING"
    assert (await house.revoker.revoke(CALLER, account.id)).platform_revocation.name == "PENDING"
    for _ in range(2):
        house.clock.offset += timedelta(minutes=5)
        await house.revoker.work_off("twitter")
    assert (await house.account(account.id)).platform_revocation.name == "CONFIRMED"


async def test_a_revoke_during_a_refresh_revokes_the_new_pair_as_well(house: House) -> None:
    account = await due_account(house)
    go_on = asyncio.Event()
    house.platform.answer_next("refresh", go_on)
    await house.refresher.work_off("twitter")
    await house.platform.until_called("refresh")
    await house.revoker.revoke(CALLER, account.id)
    go_on.set()
    await house.refresher.settled()
    await house.revoker.work_off("twitter")
    after = await house.account(account.id)
    assert (after.status, after.platform_revocation.name) == (Status.REVOKED, "CONFIRMED")
    assert [detail for kind, detail in house.platform.calls if kind == "revoke"] == ["rt-1", "at-1", "rt-2", "at-2"]
