"""Identities: read again at their interval, and what a refused access token leads to."""

from datetime import timedelta

from server.accounts.errors import GrantDead, TokenRejected
from server.accounts.model import Identity, Status
from tests.accounts.conftest import House
from tests.accounts.due import DUE


async def test_the_identity_is_read_again_at_its_interval_and_not_at_every_refresh(house: House) -> None:
    account = await house.connect()
    for _ in range(5):
        house.clock.offset += DUE
        await house.refresher.run_once()
        await house.identities.work_off("twitter")
    assert house.platform.count("identify") == 1
    house.clock.offset += timedelta(days=30)
    await house.refresher.run_once()
    house.platform.answer_next("identify", (Identity("1", "countess"),))
    assert await house.identities.work_off("twitter") == 1
    assert (await house.account(account.id)).handle == "countess"
    assert await house.identities.work_off("twitter") == 0


async def test_a_refused_access_token_is_settled_by_a_refresh(house: House) -> None:
    account = await house.connect()
    house.clock.offset += timedelta(days=31)
    await house.refresher.run_once()
    house.platform.answer_next("identify", TokenRejected("401", status=401))
    house.platform.answer_next("refresh", GrantDead("invalid", status=400))
    await house.identities.work_off("twitter")
    assert (await house.account(account.id)).status is Status.ACTIVE
    await house.refresher.run_once()
    assert (await house.account(account.id)).status is Status.EXPIRED
