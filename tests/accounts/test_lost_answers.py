"""Lost answers: a refresh token that may be spent is tried once more, near the end of its access token, no more."""

import dataclasses
from datetime import timedelta
from typing import Any

from server.accounts.errors import GrantDead, NotSent, OutcomeUnknown, PlatformRefused
from server.accounts.grants import GrantState, Retry, UnreadReply
from server.accounts.model import Status, StatusReason
from tests.accounts.conftest import House
from tests.accounts.due import DUE, due_account, sent
from tests.storage.make import refreshed


async def test_a_lost_answer_is_tried_once_more_near_the_end_and_then_the_outcome_is_lost(house: House) -> None:
    account = await due_account(house)
    house.platform.answer_next("refresh", OutcomeUnknown("reset after sending"))
    await house.refresher.run_once()
    assert await house.refresher.run_once() == 0
    house.clock.offset += timedelta(minutes=13)
    house.platform.answer_next("refresh", GrantDead("invalid", status=400))
    await house.refresher.run_once()
    after = await house.account(account.id)
    assert (after.status, after.status_reason) == (Status.EXPIRED, StatusReason.REFRESH_OUTCOME_LOST)
    assert sent(house) == ["rt-1", "rt-1"]


async def test_a_lost_answer_whose_retry_succeeds_costs_nothing(house: House) -> None:
    account = await due_account(house)
    house.platform.answer_next("refresh", OutcomeUnknown("reset after sending"))
    await house.refresher.run_once()
    house.clock.offset += timedelta(minutes=13)
    await house.refresher.run_once()
    assert (await house.account(account.id)).status is Status.ACTIVE
    house.clock.offset += DUE
    await house.refresher.run_once()
    assert sent(house) == ["rt-1", "rt-1", "rt-2"]


async def test_two_lost_answers_are_not_followed_by_a_third_request(house: House) -> None:
    account = await due_account(house)
    house.platform.answer_next("refresh", OutcomeUnknown("reset"), OutcomeUnknown("reset"))
    await house.refresher.run_once()
    house.clock.offset += timedelta(minutes=13)
    await house.refresher.run_once()
    assert (await house.account(account.id)).status is Status.ACTIVE
    house.clock.offset += timedelta(minutes=6)
    await house.refresher.run_once()
    after = await house.account(account.id)
    assert (after.status, after.status_reason) == (Status.EXPIRED, StatusReason.REFRESH_OUTCOME_LOST)
    assert len(sent(house)) == 2


async def test_an_account_whose_last_try_was_interrupted_is_served_until_its_access_token_ends(house: House) -> None:
    account = await due_account(house)
    house.platform.answer_next("refresh", OutcomeUnknown("reset"))
    await house.refresher.run_once()
    house.clock.offset += timedelta(minutes=13)
    [last_try] = await house.store.claim_due("twitter", owner="dead", lease=timedelta(seconds=60), limit=1)
    assert last_try.sends == 1
    for _ in range(2):
        house.clock.offset += timedelta(seconds=61)
        await house.refresher.run_once()
        assert await house.fresh.token_set(await house.account(account.id), timedelta(), "web")
    house.clock.offset += timedelta(minutes=4)
    await house.refresher.run_once()
    after = await house.account(account.id)
    assert (after.status, after.status_reason) == (Status.EXPIRED, StatusReason.REFRESH_OUTCOME_LOST)
    assert len(sent(house)) == 1


async def test_a_retry_that_was_refused_keeps_the_right_to_one_retry(house: House) -> None:
    account = await due_account(house)
    house.platform.answer_next("refresh", OutcomeUnknown("reset"), PlatformRefused("429", status=429), NotSent("dns"))
    await house.refresher.run_once()
    house.clock.offset += timedelta(minutes=13)
    for _ in range(3):
        await house.refresher.run_once()
        house.clock.offset += timedelta(minutes=1)
    assert (await house.account(account.id)).status is Status.ACTIVE
    assert sent(house) == ["rt-1"] * 4


async def test_where_nothing_rotates_a_lost_answer_is_just_tried_again(house: House) -> None:
    account = await due_account(house)
    house.platform.rules = dataclasses.replace(house.platform.rules, refresh_token_single_use=False)
    house.platform.answer_next("refresh", *[OutcomeUnknown("reset")] * 4)
    for _ in range(5):
        await house.refresher.run_once()
        house.clock.offset += timedelta(hours=1, seconds=1)
    after = await house.account(account.id)
    assert after.status is Status.ACTIVE and after.last_refresh_time is not None


async def test_a_claim_whose_process_died_counts_as_a_lost_answer(house: House) -> None:
    account = await due_account(house)
    await house.store.claim_due("twitter", owner="dead", lease=timedelta(seconds=60), limit=1)
    assert await house.refresher.run_once() == 0
    house.clock.offset += timedelta(seconds=61)
    await house.refresher.run_once()
    assert sent(house) == []
    house.clock.offset += timedelta(minutes=13)
    await house.refresher.run_once()
    assert sent(house) == ["rt-1"]
    assert (await house.account(account.id)).status is Status.ACTIVE


async def test_a_process_that_stood_still_after_its_claim_sends_nothing(house: House) -> None:
    """Another has taken over meanwhile and spent the token: sending it now would end the grant."""
    account = await due_account(house)
    claim_due = house.store.claim_due

    async def stand_still(*arguments: Any, **rest: Any) -> Any:
        claimed = await claim_due(*arguments, **rest)
        if claimed:
            house.clock.offset += timedelta(seconds=61)
            [other] = await claim_due("twitter", owner="other", lease=timedelta(seconds=60), limit=1)
            fresh = await house.platform.mint(("users.read",))
            await house.store.commit_refresh(refreshed(other, fresh, await house.store.now() + timedelta(hours=1)))
        return claimed

    house.store.claim_due = stand_still  # type: ignore[method-assign]
    await house.refresher.run_once()
    assert sent(house) == []
    assert (await house.account(account.id)).status is Status.ACTIVE


async def test_a_claim_that_was_not_sent_for_too_long_is_given_back_unspent(house: House) -> None:
    await due_account(house)
    claim_due = house.store.claim_due
    pauses = [timedelta(seconds=45)]

    async def stand_still(*arguments: Any, **rest: Any) -> Any:
        claimed = await claim_due(*arguments, **rest)
        if claimed and pauses:
            house.clock.offset += pauses.pop()
        return claimed

    house.store.claim_due = stand_still  # type: ignore[method-assign]
    await house.refresher.run_once()
    await house.refresher.run_once()
    assert [outcome for _, outcome in house.observer.seen if outcome in ("late", "refreshed")] == ["late", "refreshed"]
    assert sent(house) == ["rt-1"]


def with_grace(house: House) -> None:
    house.platform.rules = dataclasses.replace(house.platform.rules, replay_grace=timedelta(seconds=60))


async def test_a_known_grace_is_not_counted_from_the_claim_of_another_process(house: House) -> None:
    with_grace(house)
    await due_account(house)
    await house.store.claim_due("twitter", owner="dead", lease=timedelta(seconds=60), limit=1)
    house.clock.offset += timedelta(seconds=61)
    await house.refresher.run_once()
    await house.refresher.run_once()
    assert sent(house) == []


async def test_a_retry_within_a_known_grace_that_is_refused_waits_for_the_end_of_the_access_token(house: House) -> None:
    with_grace(house)
    await due_account(house)
    busy = PlatformRefused("429", status=429, retry_after=timedelta(minutes=5))
    house.platform.answer_next("refresh", OutcomeUnknown("reset"), busy)
    for _ in range(4):
        await house.refresher.run_once()
        house.clock.offset += timedelta(seconds=1)
    assert len(sent(house)) == 2
    house.clock.offset += timedelta(minutes=7)
    await house.refresher.run_once()
    assert len(sent(house)) == 2, "the grace is over"
    house.clock.offset += timedelta(minutes=5)
    await house.refresher.run_once()
    assert len(sent(house)) == 3


async def test_a_retry_within_a_known_grace_that_nobody_could_claim_in_time_waits_as_if_there_were_none(
    house: House,
) -> None:
    with_grace(house)
    await due_account(house)
    [claimed] = await house.store.claim_due("twitter", owner="me", lease=timedelta(seconds=60), limit=1)
    now = await house.store.now()
    await house.store.release(claimed, Retry(GrantState.UNKNOWN, now, spent=True), error="reset")
    house.clock.offset += timedelta(minutes=5)
    await house.refresher.run_once()
    assert sent(house) == []


def test_an_answer_that_nobody_could_read_is_in_no_repr() -> None:
    """It may hold the only live tokens, and what is logged of a failure may show what was at hand."""
    assert "at-canary" not in repr(UnreadReply("1", 1, b"<html>at-canary"))
