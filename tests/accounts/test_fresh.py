"""Fresh token sets on demand: one refresh for all who ask, none that is not due, and serve while valid."""

import asyncio
from datetime import timedelta

import pytest

from server.accounts.errors import (
    AccountExpired,
    AccountNotFound,
    AccountRevoked,
    GrantDead,
    NotSent,
    OurFault,
    OutcomeUnknown,
    PlatformPaused,
    PlatformRefused,
    PlatformUnavailable,
    StoreUnavailable,
)
from server.accounts.fresh import FreshTokens
from server.accounts.grants import GrantState
from server.accounts.refresh import Refresher
from tests.accounts.conftest import House
from tests.accounts.script import CALLER, Watcher
from tests.storage.make import refreshed

MINUTE = timedelta(minutes=1)
LIFE = timedelta(hours=2)


async def test_what_lives_long_enough_is_not_refreshed(house: House) -> None:
    account = await house.connect()
    house.clock.offset += 30 * MINUTE
    same, fresh = await house.fresh.refresh(CALLER, account.id, 89 * MINUTE)
    assert (same.id, fresh, house.platform.count("refresh")) == (account.id, False, 0)
    token_set = await house.fresh.token_set(account, 89 * MINUTE, "web")
    assert token_set.access_token.reveal() == "at-1"


async def test_what_ends_too_soon_is_refreshed_first(house: House) -> None:
    account = await house.connect()
    house.clock.offset += 30 * MINUTE
    token_set = await house.fresh.token_set(account, 91 * MINUTE, "web")
    assert token_set.access_token.reveal() == "at-2"
    after, fresh = await house.fresh.refresh(CALLER, account.id, 91 * MINUTE)
    assert not fresh and after.last_refresh_time is not None


async def test_without_a_lifetime_it_is_refreshed_whatever_is_left_but_not_more_often_than_the_interval(
    house: House,
) -> None:
    account = await house.connect()
    house.clock.offset += 2 * MINUTE
    assert (await house.fresh.refresh(CALLER, account.id, None))[1]
    assert not (await house.fresh.refresh(CALLER, account.id, None))[1]
    house.clock.offset += MINUTE
    assert (await house.fresh.refresh(CALLER, account.id, None))[1]
    assert house.platform.count("refresh") == 2


async def test_a_hundred_who_ask_at_once_share_one_refresh(house: House) -> None:
    account = await house.connect()
    house.clock.offset += LIFE
    go_on = asyncio.Event()
    house.platform.answer_next("refresh", go_on)
    asking = [asyncio.create_task(house.fresh.token_set(account, MINUTE, "web")) for _ in range(100)]
    await house.platform.until_called("refresh")
    go_on.set()
    assert {token_set.access_token.reveal() for token_set in await asyncio.gather(*asking)} == {"at-2"}
    assert house.platform.count("refresh") == 1


async def test_who_asks_while_the_scheduler_refreshes_waits_for_that(house: House) -> None:
    account = await house.connect()
    house.clock.offset += LIFE
    go_on = asyncio.Event()
    house.platform.answer_next("refresh", go_on)
    await house.refresher.work_off("twitter")
    asking = asyncio.create_task(house.fresh.token_set(account, MINUTE, "web"))
    await house.platform.until_called("refresh")
    go_on.set()
    assert (await asking).access_token.reveal() == "at-2"
    assert house.platform.count("refresh") == 1


async def test_who_asks_while_another_process_refreshes_waits_for_its_result(house: House) -> None:
    account = await house.connect()
    house.clock.offset += LIFE
    [claimed] = await house.store.claim_due("twitter", owner="other", lease=MINUTE, limit=1)
    asking = asyncio.create_task(house.fresh.token_set(account, MINUTE, "web"))
    await asyncio.sleep(0.1)
    assert not asking.done()
    new = await house.platform.mint(("users.read",))
    await house.store.commit_refresh(refreshed(claimed, new, await house.store.now() + LIFE))
    assert await asking == new
    assert house.platform.count("refresh") == 0


async def test_two_processes_that_are_asked_at_once_send_one_refresh(house: House) -> None:
    account = await house.connect()
    house.clock.offset += LIFE
    other = Refresher(
        house.store, {"twitter": house.platform}, {"twitter": house.gate}, house.journal, Watcher(),
        owner="other", lease=MINUTE, min_interval=MINUTE,
    )  # fmt: skip
    there = FreshTokens(house.store, house.reader, other, {"twitter": house.gate})
    go_on = asyncio.Event()
    house.platform.answer_next("refresh", go_on)
    asking = [asyncio.create_task(each.token_set(account, MINUTE, "web")) for each in (house.fresh, there)]
    await house.platform.until_called("refresh")
    go_on.set()
    one, two = await asyncio.gather(*asking)
    assert one == two and house.platform.count("refresh") == 1


async def test_a_caller_that_gives_up_stops_no_refresh(house: House) -> None:
    account = await house.connect()
    house.clock.offset += LIFE
    go_on = asyncio.Event()
    house.platform.answer_next("refresh", go_on)
    asking = asyncio.create_task(house.fresh.token_set(account, MINUTE, "web"))
    await house.platform.until_called("refresh")
    asking.cancel()
    await asyncio.wait((asking,))
    go_on.set()
    await house.refresher.settled()
    token_set = await house.store.token_set(account.grant_id)
    assert token_set is not None and token_set.access_token.reveal() == "at-2"


FAILURES = (NotSent("dns"), PlatformRefused("503", status=503), OutcomeUnknown("reset"), OurFault("odd", status=400))


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_a_failed_early_refresh_fails_nobody_whose_access_token_lives(house: House, failure: Exception) -> None:
    account = await house.connect()
    house.clock.offset += 30 * MINUTE
    house.platform.answer_next("refresh", failure, failure)  # the second try may fall due at once
    same, fresh = await house.fresh.refresh(CALLER, account.id, 100 * MINUTE)
    assert not fresh and same.access_token_expire_time == account.access_token_expire_time
    assert (await house.fresh.token_set(account, 100 * MINUTE, "web")).access_token.reveal() == "at-1"


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_where_the_access_token_has_ended_the_failure_is_told_with_when_to_try_again(
    house: House, failure: Exception
) -> None:
    account = await house.connect()
    house.clock.offset += LIFE
    house.platform.answer_next("refresh", failure)
    with pytest.raises(PlatformUnavailable) as caught:
        await house.fresh.refresh(CALLER, account.id, MINUTE)
    assert caught.value.retry_after is not None and caught.value.retry_after >= timedelta(seconds=1)


async def test_a_caller_that_insists_does_not_hammer_a_platform_that_failed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.5)  # a backoff of no time at all is as likely as any other
    account = await house.connect()
    house.clock.offset += LIFE
    house.platform.answer_next("refresh", PlatformRefused("503", status=503))
    for _ in range(20):
        with pytest.raises(PlatformUnavailable):
            await house.fresh.refresh(CALLER, account.id, None)
    assert house.platform.count("refresh") == 1


async def test_a_refresh_token_of_unknown_fate_is_not_sent_again_because_somebody_asks(house: House) -> None:
    account = await house.connect()
    house.clock.offset += 30 * MINUTE
    house.platform.answer_next("refresh", OutcomeUnknown("reset"))
    for _ in range(5):
        await house.fresh.refresh(CALLER, account.id, None)
        house.clock.offset += 2 * MINUTE
    assert house.platform.count("refresh") == 1


async def test_a_dead_grant_is_told_as_an_expired_account(house: House) -> None:
    account = await house.connect()
    house.clock.offset += LIFE
    house.platform.answer_next("refresh", GrantDead("invalid", status=400))
    for _ in range(2):
        with pytest.raises(AccountExpired) as caught:
            await house.fresh.refresh(CALLER, account.id, MINUTE)
        assert caught.value.facts == {"account_id": account.id, "status_reason": "REFRESH_REJECTED"}
    assert house.platform.count("refresh") == 1


async def test_a_revoked_or_foreign_account_is_not_refreshed(house: House) -> None:
    account = await house.connect()
    await house.revoker.revoke(CALLER, account.id)
    with pytest.raises(AccountRevoked):
        await house.fresh.refresh(CALLER, account.id, None)
    with pytest.raises(AccountNotFound):
        await house.fresh.refresh(CALLER, "01890a5d-ac96-774b-bcce-b302099a8057", None)


async def test_a_paused_platform_is_not_asked(house: House) -> None:
    account = await house.connect()
    house.clock.offset += LIFE
    house.gate.pause("an incident")
    with pytest.raises(PlatformPaused, match="an incident"):
        await house.fresh.refresh(CALLER, account.id, None)
    house.gate.resume()
    house.gate.hold(timedelta(seconds=120), "asked to wait")
    with pytest.raises(PlatformUnavailable) as caught:
        await house.fresh.refresh(CALLER, account.id, None)
    assert timedelta(seconds=118) < (caught.value.retry_after or timedelta()) <= timedelta(seconds=120)
    assert house.platform.count("refresh") == 0


async def test_what_lives_is_served_while_the_database_takes_no_writes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await house.connect()
    house.clock.offset += 30 * MINUTE

    async def full(*_: object, **__: object) -> None:
        raise StoreUnavailable("full")

    monkeypatch.setattr(house.store, "claim_grants", full)
    assert not (await house.fresh.refresh(CALLER, account.id, None))[1]
    house.clock.offset += LIFE
    with pytest.raises(StoreUnavailable):
        await house.fresh.refresh(CALLER, account.id, None)
    assert house.platform.count("refresh") == 0


async def test_a_refresh_that_the_database_did_not_take_is_no_failure_of_the_platform(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await house.connect()
    house.clock.offset += LIFE

    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(house.store, "commit_refresh", away)
    with pytest.raises(StoreUnavailable):
        await house.fresh.refresh(CALLER, account.id, None)
    assert house.journal.depth == 1
    monkeypatch.undo()
    assert await house.refresher.replay()
    await house.fresh.token_set(await house.account(account.id), MINUTE, "web")
    assert house.platform.count("refresh") == 1


async def test_one_on_demand_goes_before_a_backlog(house: House) -> None:
    accounts = [await house.connect(profile_id=f"p{number}") for number in range(60)]
    house.clock.offset += LIFE
    stuck = asyncio.Event()
    house.platform.answer_next("refresh", *[stuck] * 14)
    working = asyncio.create_task(house.refresher.work_off("twitter"))
    await house.platform.until_called("refresh", 14)
    grants = [await house.store.grant(account.grant_id) for account in accounts]
    waiting = [a for a, grant in zip(accounts, grants, strict=True) if grant and grant.state is GrantState.READY]
    async with asyncio.timeout(2):
        await house.fresh.token_set(waiting[-1], MINUTE, "web")
    stuck.set()
    await working
    await house.refresher.settled()
