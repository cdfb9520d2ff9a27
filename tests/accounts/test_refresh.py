"""Refreshing: each refresh token is spent once, and no account is called expired whose grant may live."""

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from server.accounts import attempt
from server.accounts.errors import GrantDead, NotSent, OurFault, OutcomeUnknown, PlatformRefused, StoreUnavailable
from server.accounts.grants import GrantState, UnreadReply
from server.accounts.model import Identity, Status, StatusReason
from server.storage.journal import FileJournal
from server.storage.vault import Vault
from tests.accounts.conftest import House
from tests.accounts.due import DUE, due_account, sent
from tests.storage.make import refreshed


async def test_a_grant_is_refreshed_when_it_is_due_and_not_before(house: House) -> None:
    account = await house.connect()
    house.clock.offset += timedelta(minutes=89)
    assert await house.refresher.run_once() == 0
    house.clock.offset += timedelta(minutes=14)
    assert await house.refresher.run_once() == 1
    assert (await house.account(account.id)).last_refresh_time is not None
    assert await house.refresher.run_once() == 0


async def test_each_refresh_sends_the_newest_token_once(house: House) -> None:
    await house.connect()
    for _ in range(5):
        house.clock.offset += DUE
        await house.refresher.run_once()
    assert sent(house) == ["rt-1", "rt-2", "rt-3", "rt-4", "rt-5"]


async def test_each_refresh_leaves_one_line_and_is_counted_with_its_lag(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    account = await due_account(house)
    house.platform.answer_next("refresh", PlatformRefused("503", status=503))
    with caplog.at_level("INFO", "server.accounts.refresh"):
        await house.refresher.run_once()
        house.clock.offset += timedelta(minutes=10)
        await house.refresher.run_once()
    lines = [record.__dict__ for record in caplog.records if record.message == "refresh"]
    assert [(line["grant_id"], line["platform"], line["outcome"], line["attempt"]) for line in lines] == [
        (account.grant_id, "twitter", "refused", 1),
        (account.grant_id, "twitter", "refreshed", 2),
    ]
    assert all(line["duration"] >= 0 for line in lines)
    assert [outcome for kind, outcome in house.observer.seen if kind == "refreshed"] == ["refused", "refreshed"]
    assert house.observer.lags[0] > timedelta(minutes=1)


async def test_what_ends_while_a_backlog_is_worked_off_is_expired_before_its_end(house: House) -> None:
    lacking = dataclasses.replace(await house.platform.mint(("users.read",)), refresh_token=None)
    house.platform.answer_next("exchange", lacking)
    ending = await house.connect()
    for number in range(20):
        house.platform.answer_next("identify", (Identity(f"2{number}", "ada", "Ada"),))
        await house.connect()
    house.clock.offset += DUE

    async def time_passes(refresh_token: str) -> None:
        if house.platform.count("refresh") == 1:
            house.clock.offset += timedelta(minutes=20)

    house.platform.before["refresh"] = time_passes
    await house.refresher.work_off("twitter")
    await house.refresher.settled()
    assert (await house.account(ending.id)).status is Status.EXPIRED


async def test_a_dead_grant_expires_the_account_and_gets_no_more_requests(house: House) -> None:
    account = await due_account(house)
    house.platform.answer_next("refresh", GrantDead("Value passed for the token was invalid.", status=400))
    await house.refresher.run_once()
    after = await house.account(account.id)
    assert (after.status, after.status_reason) == (Status.EXPIRED, StatusReason.REFRESH_REJECTED)
    house.clock.offset += timedelta(days=7)
    assert await house.refresher.run_once() == 0
    assert len(sent(house)) == 1


@pytest.mark.parametrize(
    "failure", [NotSent("connect refused"), PlatformRefused("503", status=503), PlatformRefused("429", status=429)]
)
async def test_a_platforms_bad_hour_expires_nobody(house: House, failure: Exception) -> None:
    account = await due_account(house)
    for _ in range(20):
        house.platform.answer_next("refresh", failure)
        await house.refresher.run_once()
        house.clock.offset += timedelta(hours=1, seconds=1)
    assert (await house.account(account.id)).status is Status.ACTIVE
    house.platform.lines["refresh"].clear()
    assert await house.refresher.run_once() == 1
    assert (await house.account(account.id)).last_refresh_time is not None


async def test_retry_after_holds_the_whole_platform(house: House) -> None:
    await house.connect(profile_id="p2")
    house.clock.offset += timedelta(minutes=15)
    await house.connect()
    house.clock.offset += timedelta(minutes=89)
    house.platform.answer_next("refresh", PlatformRefused("429", status=429, retry_after=timedelta(minutes=20)))
    await house.refresher.run_once()
    house.clock.offset += timedelta(minutes=19)
    assert await house.refresher.run_once() == 0
    assert house.gate.held
    house.clock.offset += timedelta(minutes=1, seconds=6)
    assert await house.refresher.run_once() == 2


async def test_a_refused_registration_holds_the_platform_and_marks_nobody(house: House) -> None:
    account = await due_account(house)
    house.platform.answer_next("refresh", OurFault("no", status=401, error="invalid_client"))
    await house.refresher.run_once()
    assert "registration" in house.gate.held
    assert (await house.account(account.id)).status is Status.ACTIVE


async def test_one_grant_that_the_platform_finds_odd_holds_up_nobody(house: House) -> None:
    account = await due_account(house)
    house.platform.answer_next("refresh", OurFault("odd", status=400, error="invalid_request"))
    await house.refresher.run_once()
    assert not house.gate.held
    assert (await house.account(account.id)).status is Status.ACTIVE


async def test_a_platform_that_refuses_every_request_is_left_alone_like_one_that_fails(house: House) -> None:
    accounts = [await house.connect(profile_id=f"p{number}") for number in range(40)]
    house.clock.offset += DUE
    house.platform.answer_always("refresh", OurFault("403 blocked", status=403))
    for _ in range(12):
        await house.refresher.run_once()
        house.clock.offset += timedelta(seconds=5)
    assert house.platform.count("refresh") <= 20 + 14 + 12, "until it opened, those in flight by then, and the probes"
    house.platform.answer_always("refresh", None)
    for _ in range(40):
        house.clock.offset += timedelta(seconds=30)
        await house.refresher.run_once()
    assert all([(await house.account(account.id)).last_refresh_time for account in accounts])


async def test_a_refresh_rejected_by_a_lost_race_does_not_expire_the_account(house: House) -> None:
    account = await due_account(house)
    go_on = asyncio.Event()
    house.platform.answer_next("refresh", go_on, GrantDead("replayed", status=400))
    await house.refresher.work_off("twitter")
    await house.platform.until_called("refresh")
    house.clock.offset += timedelta(seconds=61)
    [other] = await house.store.claim_due("twitter", owner="other", lease=timedelta(seconds=60), limit=1)
    now = await house.store.now()
    await house.store.commit_refresh(
        refreshed(other, await house.platform.mint(("users.read",)), now + timedelta(hours=1))
    )
    go_on.set()
    await house.refresher.settled()
    assert (await house.account(account.id)).status is Status.ACTIVE


async def test_a_pair_that_lost_the_swap_is_tried_before_the_grant_is_called_dead(house: House) -> None:
    account = await due_account(house)
    go_on = asyncio.Event()
    house.platform.answer_next("refresh", go_on)
    await house.refresher.work_off("twitter")
    await house.platform.until_called("refresh")
    house.clock.offset += timedelta(seconds=61)
    [other] = await house.store.claim_due("twitter", owner="other", lease=timedelta(seconds=60), limit=1)
    now = await house.store.now()
    wrong = await house.platform.mint(("users.read",))
    await house.store.commit_refresh(refreshed(other, wrong, now))
    go_on.set()
    await house.refresher.settled()
    house.platform.answer_next("refresh", GrantDead("not this one", status=400))
    await house.refresher.run_once()
    await house.refresher.run_once()
    after = await house.account(account.id)
    assert after.status is Status.ACTIVE
    assert sent(house)[-1] != wrong.refresh_token.reveal()


async def test_one_bad_grant_does_not_stop_the_others(house: House) -> None:
    for number in range(5):
        house.platform.answer_next("identify", (Identity(str(number), f"user{number}"),))
        await house.connect()
    house.clock.offset += DUE
    house.platform.answer_next("refresh", RuntimeError("a bug"))
    await house.refresher.run_once()
    assert [outcome for kind, outcome in house.observer.seen if kind == "refreshed"].count("refreshed") == 4


async def test_no_more_refreshes_are_in_flight_than_the_gate_allows(house: House) -> None:
    for number in range(40):
        house.platform.answer_next("identify", (Identity(str(number), f"user{number}"),))
        await house.connect()
    house.clock.offset += DUE
    go_on = asyncio.Event()
    house.platform.answer_next("refresh", *[go_on] * 14)
    working = asyncio.create_task(house.refresher.work_off("twitter"))
    await house.platform.until_called("refresh", 14)
    assert house.gate.in_flight == 14, "of 16, two places are kept for refreshes on demand"
    go_on.set()
    assert await working == 40
    await house.refresher.settled()
    assert len(set(sent(house))) == 40


async def test_after_stop_nothing_is_claimed(house: House) -> None:
    await due_account(house)
    house.refresher.stop()
    assert await house.refresher.run_once() == 0
    assert sent(house) == []


# --- what the database does not take


async def test_a_token_set_that_the_database_does_not_take_waits_in_the_journal(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account = await due_account(house)
    stored = house.store.commit_refresh
    monkeypatch.setattr(house.store, "commit_refresh", away)
    await house.refresher.run_once()
    assert house.journal.depth == 1
    files = entries(tmp_path)
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600]
    assert b"rt-" not in files[0].read_bytes()

    house.clock.offset += timedelta(hours=1)
    assert await house.refresher.run_once() == 0, "nothing may be claimed while a newer token set waits"
    monkeypatch.setattr(house.store, "commit_refresh", stored)
    await house.refresher.run_once()
    assert house.journal.depth == 0 and not entries(tmp_path)
    assert (await house.account(account.id)).last_refresh_time is not None
    assert sent(house)[0] == "rt-1" and "rt-1" not in sent(house)[1:]


async def test_the_journal_of_a_process_that_died_is_replayed_by_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch, vault: Vault, new_id: Callable[[], str], tmp_path: Path
) -> None:
    await due_account(house)
    with monkeypatch.context() as broken:
        broken.setattr(house.store, "commit_refresh", away)
        await house.refresher.run_once()
    (tmp_path / "journal" / "torn.part").write_bytes(b"half an en")
    house.refresher._journal = house.refresher._attempts._journal = FileJournal(tmp_path / "journal", vault, new_id)
    assert house.refresher._journal.depth == 1
    assert await house.refresher.replay()
    house.clock.offset += DUE
    await house.refresher.run_once()
    assert sent(house) == ["rt-1", "rt-2"]


async def test_a_token_set_that_nothing_takes_is_kept_in_memory_until_something_does(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await due_account(house)
    monkeypatch.setattr(attempt, "SAVE_AGAIN_SECONDS", 0.0)
    tries = 0
    stored = house.store.commit_refresh

    async def full(_: object) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            monkeypatch.setattr(house.store, "commit_refresh", stored)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(house.store, "commit_refresh", away)
    monkeypatch.setattr(house.journal, "keep", full)
    await house.refresher.run_once()
    assert tries == 3
    assert (await house.account(account.id)).last_refresh_time is not None


async def test_nothing_is_claimed_before_what_is_in_memory_alone_is_stored(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await due_account(house)
    in_memory = asyncio.Event()

    async def full(_: object) -> None:
        in_memory.set()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(house.store, "commit_refresh", away)
        broken.setattr(house.journal, "keep", full)
        await house.refresher.work_off("twitter")
        await in_memory.wait()
        house.clock.offset += timedelta(hours=3)
    assert await house.refresher.work_off("twitter") == 0, "its lease is over, and its access token has ended"
    await house.refresher.settled()
    await house.refresher.run_once()
    assert sent(house) == ["rt-1", "rt-2"]


async def test_an_unreadable_reply_is_kept_also_where_another_process_has_the_lease_by_now(house: House) -> None:
    account = await due_account(house)
    go_on = asyncio.Event()
    house.platform.answer_next("refresh", go_on, OutcomeUnknown("html", reply=b"<html>at-canary"))
    await house.refresher.work_off("twitter")
    await house.platform.until_called("refresh")
    house.clock.offset += timedelta(minutes=2)
    taken = await house.store.claim_due("twitter", owner="another", lease=timedelta(minutes=1), limit=1)
    assert [grant.id for grant in taken] == [account.grant_id]
    go_on.set()
    await house.refresher.settled()
    [unread] = await house.store.unread()
    assert [reply.reveal() for reply in unread.replies] == ["<html>at-canary"]


@pytest.mark.parametrize("written", [False, True])
async def test_an_unreadable_reply_that_the_database_does_not_take_waits_in_the_journal(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: bool
) -> None:
    """Once, also where the database has taken it without an answer."""
    await due_account(house)
    stored = house.store.release

    async def unanswered(*arguments: Any, **rest: Any) -> bool:
        if written:
            await stored(*arguments, **rest)
        raise StoreUnavailable("away")

    async def unavailable(_: object) -> None:
        raise StoreUnavailable("away")

    reply = b"\xff<html>at-canary"
    house.platform.answer_next("refresh", OutcomeUnknown("html", reply=reply))
    with monkeypatch.context() as away:
        away.setattr(house.store, "release", unanswered)
        away.setattr(house.store, "keep_unread", unavailable)  # or the same round may bring the entry in already
        await house.refresher.run_once()
    [entry] = entries(tmp_path)
    assert house.journal.depth == 1 and b"at-canary" not in entry.read_bytes()
    assert await house.refresher.replay()
    assert house.journal.depth == 0
    [unread] = await house.store.unread()
    assert [reply.reveal() for reply in unread.replies] == ["\N{REPLACEMENT CHARACTER}<html>at-canary"]


async def test_an_unreadable_reply_in_the_journal_of_a_process_that_died_comes_behind_no_newer_token_set(
    house: House, vault: Vault, new_id: Callable[[], str], tmp_path: Path
) -> None:
    account = await due_account(house)
    dead = FileJournal(tmp_path / "journal", vault, new_id)
    for grant_id in (account.grant_id, "one that is gone"):
        await dead.keep(UnreadReply(grant_id, 1, b"<html>at-canary"))
    await house.refresher.run_once()
    assert sent(house) == ["rt-1"]
    house.refresher._journal = FileJournal(tmp_path / "journal", vault, new_id)
    assert house.refresher._journal.depth == 2
    assert await house.refresher.replay()
    assert house.refresher._journal.depth == 0 and await house.store.unread() == ()


async def test_any_fault_of_the_database_leads_to_the_journal(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await due_account(house)

    async def broken(_: object) -> None:
        raise RuntimeError("file is not a database")

    monkeypatch.setattr(house.store, "commit_refresh", broken)
    await house.refresher.run_once()
    assert house.journal.depth == 1


@contextmanager
def unanswered(house: House, *, written: bool = True) -> Iterator[None]:
    """The database answers no write; whether it carries them out all the same."""
    engine = house.store._engine

    async def write(work: Callable[[Any], Any]) -> Any:
        if written:
            await type(engine).write(engine, work)
        raise StoreUnavailable("the standby is away")

    with pytest.MonkeyPatch.context() as away:
        away.setattr(engine, "write", write)
        yield


async def test_nothing_more_is_claimed_while_the_outcome_of_commits_is_not_known(house: House) -> None:
    """Such a claim counts as a send, and after two of them a grant that was never sent would be called lost."""
    await due_account(house)
    later = await house.connect(profile_id="p2")
    with unanswered(house):
        with pytest.raises(StoreUnavailable):
            await house.refresher.work_off("twitter")
        house.clock.offset += DUE
        assert await house.refresher.work_off("twitter") == 0
    grant = await house.store.grant(later.grant_id)
    assert grant is not None and (grant.state, grant.sends) == (GrantState.READY, 0)
    await house.refresher.run_once()
    assert "rt-2" in sent(house)


@pytest.mark.parametrize("written", [True, False])
async def test_a_claim_that_the_database_did_not_answer_is_no_send(house: House, written: bool) -> None:
    account = await due_account(house)
    for _ in range(attempt.MOST_SENDS):
        with unanswered(house, written=written), pytest.raises(StoreUnavailable):
            await house.refresher.work_off("twitter")
        assert await house.refresher.can_store()
        grant = await house.store.grant(account.grant_id)
        assert grant is not None and (grant.state, grant.sends) == (GrantState.READY, 0)
    await house.refresher.run_once()
    assert sent(house) == ["rt-1"]


async def test_a_takeover_that_the_database_did_not_answer_is_taken_over_again(house: House) -> None:
    """The send that was counted with the first claim may have been one."""
    account = await due_account(house)
    await house.store.claim_due("twitter", owner="dead", lease=timedelta(seconds=60), limit=1)
    house.clock.offset += timedelta(seconds=61)
    with unanswered(house), pytest.raises(StoreUnavailable):
        await house.refresher.work_off("twitter")
    assert await house.refresher.can_store()
    grant = await house.store.grant(account.grant_id)
    assert grant is not None and (grant.state, grant.sends) == (GrantState.SENT, 1)


@pytest.mark.parametrize("ends_first", ["the patience", "the process"])
async def test_a_token_set_is_on_disk_also_where_the_database_never_answers(
    house: House, monkeypatch: pytest.MonkeyPatch, ends_first: str
) -> None:
    """Else a kill loses it, and so does a stop whose time to drain is over."""
    await due_account(house)
    asked = asyncio.Event()

    async def hang(_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(house.store, "commit_refresh", hang)
    monkeypatch.setattr(attempt, "SAVE_SECONDS", 0.05 if ends_first == "the patience" else 3600)
    await house.refresher.work_off("twitter")
    async with asyncio.timeout(20):
        await asked.wait()
        if ends_first == "the process":
            for refresh in house.refresher._under_way.values():
                refresh.cancel()
        await house.refresher.settled()
    assert house.journal.depth == 1


def entries(folder: Path) -> list[Path]:
    return [path for path in (folder / "journal").iterdir() if not path.name.startswith(".")]


async def away(*_: object, **__: object) -> None:
    raise StoreUnavailable("away")
