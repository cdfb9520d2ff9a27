"""What operators do: pause a platform and let it go on, and ask why an account is as it is."""

from datetime import timedelta

import pytest

from server.accounts.errors import (
    AccountNotFound,
    ConnectRefused,
    GrantDead,
    OutcomeUnknown,
    PlatformPaused,
    PlatformRefused,
    Reason,
)
from server.accounts.grants import GrantState
from server.accounts.model import Status
from tests.accounts.conftest import House
from tests.accounts.due import DUE
from tests.accounts.script import CALLER, OPERATOR


async def pause(house: House, reason: str) -> None:
    await house.store.set_pause("twitter", reason=reason, operator="ada")
    await house.pauses.follow()


async def test_a_paused_platform_gets_no_request_of_any_kind_until_it_is_resumed(house: House) -> None:
    account = await house.connect()
    revoked = await house.connect(profile_id="p2")
    code = await house.come_back(await house.begin(profile_id="p3"))
    house.clock.offset += timedelta(seconds=1)
    await pause(house, "an incident")
    before = len(house.platform.calls)
    with pytest.raises(PlatformPaused, match="an incident"):
        await house.begin()
    with pytest.raises(ConnectRefused) as caught:
        await house.complete(code, profile_id="p3")
    assert caught.value.reason is Reason.PLATFORM_PAUSED
    assert (await house.revoker.revoke(CALLER, revoked.id)).platform_revocation.name == "PENDING"
    assert len(house.platform.calls) == before

    await pause(house, "")
    await house.complete(code, profile_id="p3")
    house.clock.offset += DUE
    await pause(house, "again")
    assert await house.refresher.run_once() == 0
    await house.identities.work_off("twitter")
    await pause(house, "")
    assert await house.refresher.run_once() == 2
    assert await house.revoker.work_off("twitter") == 1
    assert (await house.account(account.id)).status is Status.ACTIVE


async def test_a_pause_outlives_the_process(house: House) -> None:
    await house.store.set_pause("twitter", reason="an incident", operator="ada")
    assert not house.gate.paused
    await house.pauses.follow()
    assert house.gate.paused == "an incident"


async def test_what_was_resumed_long_ago_does_not_open_a_gate_that_is_held_now(house: House) -> None:
    await house.store.set_pause("twitter", reason="", operator="ada")
    house.gate.hold(timedelta(minutes=1), "asked to wait")
    await house.pauses.follow()
    await house.pauses.follow()
    assert house.gate.held


async def test_the_story_of_an_account_tells_each_failure_and_what_is_next(house: House) -> None:
    account = await house.connect()
    house.clock.offset += DUE
    house.platform.answer_next("refresh", PlatformRefused("503 over capacity", status=503))
    await house.refresher.run_once()
    story = await house.explainer.explain(OPERATOR, account.id)
    assert [event.kind for event in story.events] == ["connected", "refresh_failed"]
    failed = story.events[-1].facts
    assert (failed["error"], failed["attempt"], failed["state"]) == ("503 over capacity", 1, "ready")
    assert story.grant is not None
    assert (story.grant.state, story.grant.attempts, story.grant.last_error) == (
        GrantState.READY, 1, "503 over capacity",
    )  # fmt: skip
    assert "tried again" in story.next_step and story.next_time == story.grant.due_time
    assert story.platform_hold == ""


async def test_the_story_of_an_expired_account_says_who_asked_and_what_the_platform_answered(house: House) -> None:
    account = await house.connect()
    house.clock.offset += timedelta(hours=2)
    house.platform.answer_next("refresh", OutcomeUnknown("no answer: ServerDisconnectedError"))
    await house.refresher.run_once()
    house.clock.offset += timedelta(minutes=13)
    house.platform.answer_next("refresh", GrantDead("400 invalid_request", status=400))
    await house.refresher.run_once()
    story = await house.explainer.explain(OPERATOR, account.id)
    assert [event.kind for event in story.events] == ["connected", "refresh_failed", "expired"]
    assert story.events[0].caller == "web" and story.events[-1].caller == ""
    assert story.events[-1].facts == {"reason": "REFRESH_OUTCOME_LOST", "error": "400 invalid_request"}
    assert "connect the account again" in story.next_step and story.next_time is None


async def test_a_refresh_on_demand_that_fails_is_told_with_its_caller(house: House) -> None:
    account = await house.connect()
    house.clock.offset += timedelta(minutes=30)
    house.platform.answer_next("refresh", PlatformRefused("503", status=503))
    await house.fresh.refresh(CALLER, account.id, None)
    story = await house.explainer.explain(OPERATOR, account.id)
    assert (story.events[-1].kind, story.events[-1].caller) == ("refresh_failed", "web")


async def test_the_story_tells_why_nothing_is_sent_to_the_platform(house: House) -> None:
    account = await house.connect()
    house.gate.pause("an incident")
    assert (await house.explainer.explain(OPERATOR, account.id)).platform_hold == "an incident"


async def test_the_story_of_a_foreign_account_is_that_of_a_missing_one(house: House) -> None:
    with pytest.raises(AccountNotFound):
        await house.explainer.explain(OPERATOR, "01890a5d-ac96-774b-bcce-b302099a8057")


async def test_grants_are_counted_by_platform_and_state(house: House) -> None:
    for number in range(4):
        await house.connect(profile_id=f"p{number}")
    house.clock.offset += DUE
    house.platform.answer_next("refresh", GrantDead("dead", status=400), OutcomeUnknown("reset"))
    await house.refresher.run_once()
    counted = {key: number for key, number in (await house.store.census()).items() if number}
    assert counted == {("twitter", "ready"): 2, ("twitter", "unknown"): 1, ("twitter", "dead"): 1}
