"""The brown-out guard: a platform that suddenly calls many grants dead disconnects nobody, unless it is right."""

import asyncio
import time
from datetime import timedelta

import pytest

from server.accounts.brownout import BrownOutGuard
from server.accounts.errors import GrantDead
from server.accounts.model import Account, Identity, Status
from tests.accounts.conftest import House
from tests.accounts.due import DUE
from tests.accounts.script import CALLER

DEAD = "Value passed for the token was invalid."


async def connected(house: House, count: int) -> list[Account]:
    found = []
    for number in range(count):
        house.platform.answer_next("identify", (Identity(str(number), f"user{number}"),))
        found.append(await house.connect())
    return found


async def statuses(house: House, accounts: list[Account]) -> list[Status]:
    return [(await house.account(account.id)).status for account in accounts]


def guard_of(house: House) -> BrownOutGuard:
    return house.refresher._lanes["twitter"].guard


async def browned_out(house: House, count: int = 40) -> list[Account]:
    """All grants are due, and the platform calls every one of them dead."""
    accounts = await connected(house, count)
    house.clock.offset += DUE
    house.platform.answer_always("refresh", GrantDead(DEAD, status=400))
    await house.refresher.run_once()
    return accounts


async def test_a_platform_that_calls_everybody_dead_disconnects_nobody(house: House) -> None:
    accounts = await browned_out(house)
    assert set(await statuses(house, accounts)) == {Status.ACTIVE}
    assert "too many grants dead" in house.gate.held
    sent = house.platform.count("refresh")
    house.clock.offset += timedelta(minutes=14)
    await house.refresher.run_once()
    assert house.platform.count("refresh") == sent, "the platform is left alone for fifteen minutes"


async def test_after_a_brown_out_all_are_refreshed(house: House) -> None:
    accounts = await browned_out(house)
    house.platform.answer_always("refresh", None)
    house.clock.offset += timedelta(minutes=15, seconds=1)
    await house.refresher.run_once()
    await house.refresher.run_once()
    assert set(await statuses(house, accounts)) == {Status.ACTIVE}
    assert all([(await house.account(account.id)).last_refresh_time for account in accounts])
    assert not guard_of(house).doubtful


async def test_while_it_lasts_five_held_grants_are_asked_each_quarter_of_an_hour(house: House) -> None:
    accounts = await browned_out(house, 40)
    await house.refresher.run_once()
    for _ in range(3):
        before = house.platform.count("refresh")
        house.clock.offset += timedelta(minutes=15, seconds=1)
        await house.refresher.run_once()
        assert house.platform.count("refresh") - before <= 10
    assert set(await statuses(house, accounts)) == {Status.ACTIVE}


async def test_the_verdicts_stand_when_others_refresh(house: House) -> None:
    dead = await connected(house, 30)
    house.platform.dead_tokens.update(f"rt-{number}" for number in range(1, 31))
    house.clock.offset += timedelta(minutes=14)
    for number in range(100, 110):
        house.platform.answer_next("identify", (Identity(str(number), f"user{number}"),))
        await house.connect()
    house.clock.offset += timedelta(minutes=88.5)
    await house.refresher.run_once()
    assert set(await statuses(house, dead)) == {Status.ACTIVE}
    for _ in range(5):
        house.clock.offset += timedelta(minutes=15, seconds=1)
        await house.refresher.run_once()
    assert set(await statuses(house, dead)) == {Status.EXPIRED}


async def test_an_operator_can_say_that_the_verdicts_stand(house: House) -> None:
    dead = await browned_out(house, 30)
    await house.pauses.follow()
    await house.store.set_pause("twitter", reason="", operator="ada")
    await house.pauses.follow()
    house.clock.offset += timedelta(minutes=15, seconds=1)
    await house.refresher.run_once()
    assert set(await statuses(house, dead)) == {Status.EXPIRED}


async def test_a_single_dead_grant_is_told_at_once(house: House) -> None:
    [account] = await connected(house, 1)
    house.clock.offset += DUE
    house.platform.answer_next("refresh", GrantDead(DEAD, status=400))
    await house.refresher.run_once()
    assert await statuses(house, [account]) == [Status.EXPIRED]


async def test_of_a_hundred_only_the_one_that_is_dead_expires(house: House) -> None:
    accounts = await connected(house, 100)
    house.platform.dead_tokens.add("rt-50")
    house.clock.offset += DUE
    await house.refresher.run_once()
    found = await statuses(house, accounts)
    assert found[49] is Status.EXPIRED and found.count(Status.EXPIRED) == 1


async def test_one_percent_is_dead_and_then_everybody_is_called_dead(house: House) -> None:
    accounts = await connected(house, 200)
    house.platform.dead_tokens.update({"rt-20", "rt-60"})
    house.clock.offset += DUE
    answers = 0

    async def storm(token: str) -> None:
        nonlocal answers
        answers += 1
        if answers > 120:
            raise GrantDead(DEAD, status=400)

    house.platform.before["refresh"] = storm
    await house.refresher.run_once()
    expired = [account.id for account in accounts if (await house.account(account.id)).status is Status.EXPIRED]
    genuine = {"rt-20": accounts[19].id, "rt-60": accounts[59].id}
    assert set(expired) <= set(genuine.values())


async def test_a_verdict_waits_for_those_under_way_and_not_for_ever(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = await connected(house, 2)
    house.clock.offset += DUE
    monkeypatch.setattr(house.refresher._attempts, "_verdict_limit", timedelta(seconds=0.05))
    go_on = asyncio.Event()
    house.platform.answer_next("refresh", GrantDead(DEAD, status=400), go_on)
    await house.refresher.work_off("twitter")
    await house.platform.until_called("refresh", 2)
    assert await statuses(house, accounts) == [Status.ACTIVE, Status.ACTIVE]
    await asyncio.sleep(0.3)
    assert (await statuses(house, accounts)).count(Status.EXPIRED) == 1
    go_on.set()
    await house.refresher.settled()


async def test_a_verdict_waits_no_longer_than_for_a_claim_on_demand_that_brings_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    [dead] = await connected(house, 1)
    house.clock.offset += timedelta(hours=1)
    house.platform.answer_next("identify", (Identity("another", "another"),))
    other = await house.connect()
    house.clock.offset += DUE - timedelta(hours=1)
    claiming, go_on = asyncio.Event(), asyncio.Event()

    async def overtaken(*_: object, **__: object) -> list[object]:
        claiming.set()
        await go_on.wait()
        return []

    monkeypatch.setattr(house.store, "claim_grants", overtaken)
    asking = asyncio.create_task(house.fresh.refresh(CALLER, other.id, None))
    await claiming.wait()
    house.platform.answer_next("refresh", GrantDead(DEAD, status=400))
    await house.refresher.work_off("twitter")
    until = time.monotonic() + 5
    while not house.refresher._lanes["twitter"].guard._waiting:
        assert time.monotonic() < until
        await asyncio.sleep(0)
    assert await statuses(house, [dead]) == [Status.ACTIVE], "what is under way may bear it out"
    go_on.set()
    async with asyncio.timeout(5):
        await house.refresher.settled()
    assert await statuses(house, [dead]) == [Status.EXPIRED]
    await asking
