"""Races of refreshes: with other processes, with those who ask, with holds, and with revokes and reconnects."""

import asyncio
import contextlib
import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from server.accounts.errors import AccountError, NotSent, OutcomeUnknown, PlatformRefused, StoreUnavailable
from server.accounts.grants import to_refreshed
from server.accounts.model import Account, Status
from tests.accounts.conftest import House
from tests.accounts.script import CALLER
from tests.accounts.test_brownout import browned_out, connected, guard_of, statuses

MINUTE = timedelta(minutes=1)
DUE = 103 * MINUTE
DOWN = OutcomeUnknown("503", status=503)


async def test_a_stop_waits_also_for_a_refresh_on_demand_that_came_behind_one_that_was_due(house: House) -> None:
    [account] = await connected(house, 1)
    house.clock.offset += DUE
    grant = await house.store.grant(account.grant_id)
    assert grant is not None
    go_on = asyncio.Event()
    house.platform.answer_next("refresh", NotSent("dns"))
    async with house.gate._queue:  # it waits for its turn
        demand = asyncio.create_task(house.refresher.on_demand(grant, "publisher"))
        await asyncio.sleep(0)
        waiting = set(house.refresher._running)
        await house.refresher.work_off("twitter")
        await asyncio.gather(*house.refresher._running - waiting)
        assert len(waiting) == house.platform.count("refresh") == 1
        house.clock.offset += timedelta(seconds=10)
        house.platform.answer_next("refresh", go_on)
    await house.platform.until_called("refresh", 2)
    demand.cancel()
    stopping = asyncio.create_task(house.refresher.settled())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not stopping.done()
    go_on.set()
    await stopping
    assert (await house.account(account.id)).last_refresh_time is not None


async def test_a_brown_out_goes_on_while_another_process_has_the_held_grants(house: House) -> None:
    accounts = await browned_out(house)
    house.clock.offset += timedelta(minutes=15, seconds=1)
    await house.store.claim_due("twitter", owner="another", lease=MINUTE, limit=64)
    await house.refresher.run_once()
    assert guard_of(house).doubtful and house.gate.held
    assert set(await statuses(house, accounts)) == {Status.ACTIVE}


async def test_a_brown_out_does_not_go_on_for_ever_for_held_grants_that_cannot_be_claimed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = await browned_out(house, 25)
    house.platform.answer_always("refresh", None)

    async def broken(*_: object, **__: object) -> list[object]:
        """As for rows whose seal does not open."""
        return []

    monkeypatch.setattr(house.store, "claim_grants", broken)
    house.clock.offset += 16 * MINUTE
    for _ in range(8):
        await house.refresher.run_once()
        house.clock.offset += timedelta(seconds=6)
    assert not house.gate.held
    assert [each.id for each in accounts if (await house.account(each.id)).last_refresh_time is None] == []


async def test_a_brown_out_goes_on_where_the_databases_clock_is_a_bit_behind(house: House) -> None:
    accounts = await browned_out(house)
    house.clock.offset += timedelta(minutes=15)
    now = house.gate.now
    house.gate.now = lambda: now() + 0.1
    house.clock.offset -= timedelta(milliseconds=90)
    for _ in range(2):
        await house.refresher.run_once()
        house.clock.offset += timedelta(seconds=1)
    assert guard_of(house).doubtful
    assert set(await statuses(house, accounts)) == {Status.ACTIVE}


async def test_a_hiccup_after_the_access_token_has_ended_does_not_eat_both_tries(house: House) -> None:
    account = await house.connect()
    house.clock.offset += timedelta(hours=3)
    house.platform.answer_always("refresh", DOWN)
    for _ in range(10):
        await house.refresher.run_once()
        with contextlib.suppress(AccountError):
            await house.fresh.refresh(CALLER, account.id, MINUTE)
        house.clock.offset += timedelta(seconds=30)
    assert house.platform.count("refresh") == 1
    house.platform.answer_always("refresh", None)
    house.clock.offset += timedelta(minutes=20)
    await house.refresher.run_once()
    after = await house.account(account.id)
    assert after.status is Status.ACTIVE and after.last_refresh_time is not None


async def test_who_asks_while_the_breaker_is_open_spends_no_last_try(house: House) -> None:
    accounts = await connected(house, 40)
    house.clock.offset += DUE
    house.platform.answer_always("refresh", DOWN)
    await house.refresher.run_once()
    assert house.gate.probing
    house.clock.offset += timedelta(minutes=16)
    before = house.platform.count("refresh")

    async def ask(account: Account) -> None:
        with contextlib.suppress(AccountError):
            await house.fresh.refresh(CALLER, account.id, timedelta(minutes=10))

    sent = [account for account in accounts if (await grant_of(house, account)).sends]
    await asyncio.gather(*map(ask, sent))
    assert house.platform.count("refresh") - before <= 1
    house.platform.answer_always("refresh", None)
    for _ in range(3):
        house.clock.offset += timedelta(seconds=6)
        await house.refresher.run_once()
    assert (await statuses(house, accounts)).count(Status.EXPIRED) <= 1


async def grant_of(house: House, account: Account) -> Any:
    return await house.store.grant(account.grant_id)


class Unanswered:
    """Refreshes wait for their answers until `go_on`; `most` were in flight at once."""

    def __init__(self, house: House) -> None:
        self.go_on = asyncio.Event()
        self.most = 0
        self._gate = house.gate
        house.platform.before["refresh"] = self._hang

    async def _hang(self, _: str) -> None:
        self.most = max(self.most, self._gate.in_flight)
        await self.go_on.wait()


async def come_to_the_gate(
    house: House, monkeypatch: pytest.MonkeyPatch, accounts: list[Account]
) -> list[asyncio.Task[Any]]:
    """Somebody asks for each of them; all have come to the gate when this returns."""
    came, all_have, turn = 0, asyncio.Event(), house.gate.turn

    async def counted() -> bool:
        nonlocal came
        came += 1
        if came == len(accounts):
            all_have.set()
        return await turn()

    monkeypatch.setattr(house.gate, "turn", counted)
    asking = [asyncio.create_task(house.fresh.refresh(CALLER, account.id, None)) for account in accounts]
    await asyncio.wait_for(all_have.wait(), 30)
    return asking


async def test_a_hundred_who_ask_at_once_stay_within_the_cap(house: House) -> None:
    accounts = await connected(house, 100)
    house.clock.offset += timedelta(minutes=30)
    unanswered = Unanswered(house)
    asking = [asyncio.create_task(house.fresh.refresh(CALLER, account.id, None)) for account in accounts]
    await house.platform.until_called("refresh", 16)
    unanswered.go_on.set()
    await asyncio.gather(*asking)
    assert unanswered.most == 16 and house.platform.count("refresh") == 100


@pytest.mark.parametrize("meanwhile", ["a claim is under way", "the journal is replayed before a claim"])
async def test_who_asks_while_claimed_ones_are_still_to_begin_stays_within_the_cap_with_them(
    house: House, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    accounts = await connected(house, 30)
    house.clock.offset += DUE
    asking: list[asyncio.Task[Any]] = []
    unanswered, claim_due, replays = Unanswered(house), house.store.claim_due, 0

    async def slow_claim(*arguments: Any, **options: Any) -> Any:
        if not asking:
            asking.extend(await come_to_the_gate(house, monkeypatch, accounts[:10]))
        return await claim_due(*arguments, **options)

    async def slow_replay() -> bool:
        nonlocal replays
        replays += 1
        if replays == 2:  # the first comes before it is known how many may begin
            asking.extend(await come_to_the_gate(house, monkeypatch, accounts[:10]))
        return True

    if meanwhile == "a claim is under way":
        monkeypatch.setattr(house.store, "claim_due", slow_claim)
    else:
        monkeypatch.setattr(house.refresher, "replay", slow_replay)
    working = asyncio.create_task(house.refresher.work_off("twitter"))
    await house.platform.until_called("refresh", 16)
    unanswered.go_on.set()
    await asyncio.gather(working, *asking)
    await house.refresher.settled()
    assert len(asking) == 10 and unanswered.most <= 16


async def test_who_waited_for_a_turn_sends_nothing_into_a_pause(house: House) -> None:
    accounts = await connected(house, 17)
    house.clock.offset += timedelta(minutes=30)
    go_on = asyncio.Event()

    async def hang(_: str) -> None:
        await go_on.wait()

    house.platform.before["refresh"] = hang
    asking = [asyncio.create_task(house.fresh.refresh(CALLER, account.id, None)) for account in accounts[:16]]
    await house.platform.until_called("refresh", 16)
    asking.append(asyncio.create_task(house.fresh.refresh(CALLER, accounts[16].id, None)))
    await asyncio.sleep(0.05)
    house.gate.pause("an incident")
    go_on.set()
    await asyncio.gather(*asking)
    assert house.platform.count("refresh") == 16
    assert house.gate.in_flight == 0


async def test_a_claim_on_demand_that_fails_in_whatever_way_gives_its_place_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await house.connect()
    house.clock.offset += timedelta(minutes=30)

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no fault that anybody has thought of")

    with monkeypatch.context() as patched:
        patched.setattr(house.store, "claim_grants", broken)
        with pytest.raises(RuntimeError):
            await house.fresh.refresh(CALLER, account.id, None)
    assert house.gate.in_flight == 0
    assert (await house.fresh.refresh(CALLER, account.id, None))[1]


async def test_what_was_claimed_before_a_wait_began_is_not_sent_into_it(house: House) -> None:
    await connected(house, 14)
    house.clock.offset += DUE
    claim_due = house.store.claim_due

    async def then_held(*arguments: Any, **rest: Any) -> Any:
        claimed = await claim_due(*arguments, **rest)
        house.gate.hold(timedelta(minutes=10), "the platform asked us to wait")
        return claimed

    house.store.claim_due = then_held  # type: ignore[method-assign]
    await house.refresher.run_once()
    assert house.platform.count("refresh") == 0


async def test_a_503_that_asks_us_to_wait_holds_the_platform_also_where_tokens_rotate(house: House) -> None:
    await house.connect()
    house.clock.offset += DUE
    house.platform.answer_next("refresh", OutcomeUnknown("503", status=503, retry_after=timedelta(minutes=45)))
    await house.refresher.run_once()
    house.clock.offset += timedelta(minutes=44)
    assert house.gate.held
    assert await house.refresher.run_once() == 0
    house.clock.offset += timedelta(minutes=60)
    assert await house.refresher.run_once() == 1


async def test_what_went_to_the_journal_is_stored_before_the_next_claim(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = await connected(house, 60)
    house.clock.offset += timedelta(hours=3)
    commit, failed = house.store.commit_refresh, []

    async def once(refreshed: Any) -> Any:
        if not failed:
            failed.append(refreshed.grant_id)
            raise StoreUnavailable("the connection was lost in the commit")
        return await commit(refreshed)

    monkeypatch.setattr(house.store, "commit_refresh", once)
    claim, depths = house.store.claim_due, []

    async def seen(*arguments: Any, **rest: Any) -> Any:
        depths.append(house.journal.depth)
        return await claim(*arguments, **rest)

    monkeypatch.setattr(house.store, "claim_due", seen)
    await house.refresher.run_once()
    assert len(failed) == 1 and not any(depths)
    assert Status.EXPIRED not in await statuses(house, accounts)


async def test_a_revocation_that_fails_late_does_not_end_the_hold_of_a_reconnected_account(house: House) -> None:
    account = await house.connect()
    go_on = asyncio.Event()
    house.platform.answer_next("revoke", go_on, PlatformRefused("503", status=503))
    revoking = asyncio.create_task(house.revoker.revoke(CALLER, account.id))
    await house.platform.until_called("revoke")
    again = await house.connect()
    assert (again.id, again.status) == (account.id, Status.ACTIVE)
    go_on.set()
    await revoking
    house.clock.offset += timedelta(hours=2)
    before = house.platform.count("revoke")
    await house.revoker.work_off("twitter")
    assert house.platform.count("revoke") == before


async def test_a_pair_that_comes_long_after_a_reconnect_is_held_back_like_the_older_one(house: House) -> None:
    account = await house.connect()
    house.clock.offset += DUE
    [claimed] = await house.store.claim_due("twitter", owner="another", lease=MINUTE, limit=1)
    late = await house.platform.mint(claimed.token_set.scopes)
    await house.connect()
    house.clock.offset += timedelta(hours=1)
    await house.store.sweep_requests(limit=10)
    await house.store.commit_refresh(to_refreshed(claimed, late, None))
    before = house.platform.count("revoke")
    await house.revoker.work_off("twitter")
    assert (await house.account(account.id)).status is Status.ACTIVE
    assert house.platform.count("revoke") == before
    await house.revoker.revoke(CALLER, account.id)
    assert late.refresh_token is not None
    assert ("revoke", late.refresh_token.reveal()) in house.platform.calls


async def test_an_interrupted_refresh_is_tried_again_at_once_where_nothing_rotates(house: House) -> None:
    house.platform.rules = dataclasses.replace(house.platform.rules, refresh_token_single_use=False)
    account = await house.connect()
    house.clock.offset += DUE
    await house.store.claim_due("twitter", owner="died", lease=MINUTE, limit=1)
    house.clock.offset += timedelta(seconds=61)
    house.platform.answer_next("refresh", PlatformRefused("503", status=503))
    await house.refresher.run_once()
    grant = await grant_of(house, account)
    assert grant.state == "ready" and grant.due_time - await house.store.now() < timedelta(seconds=11)


async def test_a_stop_waits_for_no_verdict(house: House) -> None:
    await connected(house, 2)
    house.clock.offset += DUE
    go_on = asyncio.Event()
    house.platform.dead_tokens.add("rt-1")
    house.platform.answer_next("refresh", go_on)
    await house.refresher.work_off("twitter")
    await house.platform.until_called("refresh", 2)
    house.refresher.stop()
    go_on.set()
    async with asyncio.timeout(5):
        await house.refresher.settled()
