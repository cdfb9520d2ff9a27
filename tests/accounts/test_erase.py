"""Deleting a profile: what goes, what stays, what a crash at any step leaves to be done, and what nobody can undo."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from server.accounts.audit import Linker
from server.accounts.callers import Caller
from server.accounts.errors import (
    CallerNotPermitted,
    ConnectRefused,
    GrantDead,
    PlatformRefused,
    Reason,
    StoreUnavailable,
)
from server.accounts.events import EventFilter, EventKind
from server.accounts.model import PlatformRevocation, Receipt, Status
from server.storage import revocations
from server.storage.engine import Engine
from server.storage.transaction import Transaction, micros
from tests.accounts.conftest import House
from tests.accounts.due import DUE
from tests.accounts.erasing import PERSONAL, PROFILE, connect, everything, rows, settled
from tests.accounts.script import CALLER, OPERATOR

CONFIRMED, PENDING = PlatformRevocation.CONFIRMED, PlatformRevocation.PENDING


async def with_a_past(house: House) -> list[Any]:
    """Two accounts of one profile and one of another, with failed refreshes and a failed connect; all is linked."""
    accounts = [await connect(house, "1", "ada-handle"), await connect(house, "2", "other-handle")]
    await connect(house, "3", "kept-handle", "other/1")
    house.clock.offset += DUE
    house.platform.answer_next("refresh", *[PlatformRefused("an error that names ada", status=503)] * 3)
    await house.refresher.run_once()
    house.platform.answer_next("exchange", GrantDead("no"))
    with pytest.raises(ConnectRefused):
        await house.connect(profile_id=PROFILE)
    await Linker(house.store, "me").work_off()
    return accounts


async def outcomes(receipt: Receipt) -> dict[str, PlatformRevocation]:
    return {each.account_id: each.platform_revocation for each in receipt.accounts}


async def test_a_deleted_profile_is_gone_at_the_platform_and_here(house: House, engine: Engine) -> None:
    accounts = await with_a_past(house)
    assert all(text in everything(engine) for text in PERSONAL)
    receipt = await house.eraser.delete_profile(CALLER, PROFILE)
    assert await outcomes(receipt) == {account.id: CONFIRMED for account in accounts}
    assert receipt.erase_time is not None
    assert house.platform.count("revoke") == 4
    assert [await house.store.account(account.id) for account in accounts] == [None, None]
    found = everything(engine)
    assert "ada-handle" not in found and "other-handle" not in found
    assert (found.count("Ada Lovelace"), found.count("an error that names ada")) == (1, 2), "those of the other profile"
    await settled(house)
    assert PROFILE not in everything(engine, "erasures")
    assert len(rows(engine, "accounts")) == len(rows(engine, "grants")) == 1
    assert rows(engine, "revocations") == rows(engine, "authorization_requests") == []


async def test_the_audit_of_a_deleted_profile_stays_without_what_is_personal_and_the_chain_holds(
    house: House, engine: Engine
) -> None:
    [account, _] = await with_a_past(house)
    before = await house.store.events_of(account.id, limit=99)
    await house.eraser.delete_profile(CALLER, PROFILE)
    await Linker(house.store, "me").work_off()
    events = await house.store.events_of(account.id, limit=99)
    kinds = [event.kind for event in events]
    assert kinds == [*(event.kind for event in before), "revoked", "account_erased", "platform_revocation_confirmed"]
    assert {event.profile_id for event in events} == {""}
    assert events[0].facts["scopes"] and "handle" not in events[0].facts
    assert events[-2].facts["platform_revocation"] == "PENDING" and events[-2].caller == "web"
    report = await house.store.verify_chain()
    assert (report.broken, report.tail) == (None, ())
    assert report.redacted >= len(before)


async def test_the_neighbours_of_a_deleted_profile_are_as_they_were(house: House) -> None:
    await with_a_past(house)
    other = (await house.store.list_events(EventFilter(profile_id="other/1"), after="", size=99)).events
    await house.eraser.delete_profile(CALLER, PROFILE)
    await house.eraser.delete_profile(CALLER, "other")
    assert (await house.store.list_events(EventFilter(profile_id="other/1"), after="", size=99)).events == other
    await house.refresher.run_once()
    assert house.platform.count("revoke") == 4


async def test_deleting_a_profile_again_returns_the_same_receipt(house: House) -> None:
    await with_a_past(house)
    first = await house.eraser.delete_profile(CALLER, PROFILE)
    second = await house.eraser.delete_profile(CALLER, PROFILE)
    await settled(house)
    third = await house.eraser.delete_profile(CALLER, PROFILE)
    assert first.accounts == second.accounts == third.accounts
    assert {first.erasure_id, second.erasure_id, third.erasure_id} == {first.erasure_id}
    assert house.platform.count("revoke") == 4


async def test_a_profile_that_never_was_has_an_empty_receipt(house: House) -> None:
    assert (await house.eraser.delete_profile(CALLER, "nobody")).accounts == ()


async def test_a_platform_that_does_not_answer_confirms_later_and_the_receipt_says_when(
    house: House, engine: Engine
) -> None:
    account = await connect(house, "1", "ada-handle")
    house.platform.answer_always("revoke", PlatformRefused("503", status=503))
    receipt = await house.eraser.delete_profile(CALLER, PROFILE)
    assert await outcomes(receipt) == {account.id: PENDING}
    assert PROFILE not in repr(rows(engine, "revocations")), "tokens wait without the profile's id"
    await settled(house)
    house.platform.answer_always("revoke", None)
    await settled(house)
    receipt = await house.eraser.delete_profile(CALLER, PROFILE)
    assert await outcomes(receipt) == {account.id: CONFIRMED}
    assert receipt.accounts[0].update_time > receipt.accounts[0].erase_time
    assert rows(engine, "revocations") == []


async def test_what_the_platform_cannot_confirm_is_erased_and_said(house: House, engine: Engine) -> None:
    house.platform.rules = replace(house.platform.rules, revocation_supported=False)
    account = await connect(house, "1", "ada-handle")
    receipt = await house.eraser.delete_profile(CALLER, PROFILE)
    assert await outcomes(receipt) == {account.id: PlatformRevocation.NOT_SUPPORTED}
    assert rows(engine, "grants") == rows(engine, "revocations") == []


async def test_revoked_and_expired_accounts_are_erased_too(house: House, engine: Engine) -> None:
    revoked, expired = await connect(house, "1", "ada-handle"), await connect(house, "2", "other-handle")
    await house.revoker.revoke(CALLER, revoked.id)
    house.clock.offset += DUE
    house.platform.answer_next("refresh", GrantDead("dead", status=400))
    await house.refresher.run_once()
    receipt = await house.eraser.delete_profile(CALLER, PROFILE)
    assert await outcomes(receipt) == {revoked.id: CONFIRMED, expired.id: PlatformRevocation.NOTHING_TO_REVOKE}
    assert rows(engine, "accounts") == rows(engine, "grants") == []


async def test_a_refresh_under_way_does_not_outlive_its_profile(house: House, engine: Engine) -> None:
    account = await connect(house, "1", "ada-handle")
    house.clock.offset += DUE
    answer = asyncio.Event()
    house.platform.answer_next("refresh", answer)
    refreshing = asyncio.create_task(house.refresher.run_once())
    await house.platform.until_called("refresh")
    receipt = await house.eraser.delete_profile(CALLER, PROFILE)
    assert await outcomes(receipt) == {account.id: PENDING}, "a new pair is still to come"
    answer.set()
    await refreshing
    assert PROFILE not in repr(rows(engine, "revocations"))
    await settled(house)
    assert {token for kind, token in house.platform.calls if kind == "revoke"} == {"at-1", "rt-1", "at-2", "rt-2"}
    assert await outcomes(await house.eraser.delete_profile(CALLER, PROFILE)) == {account.id: CONFIRMED}
    assert rows(engine, "grants") == rows(engine, "revocations") == []


async def test_a_connect_under_way_does_not_bring_the_profile_back(house: House, engine: Engine) -> None:
    begun, answered = await house.begin(profile_id=PROFILE), await house.begin(profile_id=PROFILE)
    code = await house.come_back(answered)
    exchanged = await house.come_back(await house.begin(profile_id=PROFILE))
    answer = asyncio.Event()
    house.platform.answer_next("exchange", answer)
    exchanging = asyncio.create_task(house.complete(exchanged, profile_id=PROFILE))
    await house.platform.until_called("exchange")
    await house.eraser.delete_profile(CALLER, PROFILE)
    answer.set()
    with pytest.raises(ConnectRefused):
        await exchanging
    with pytest.raises(ConnectRefused) as caught:
        await house.complete(code, profile_id=PROFILE)
    assert caught.value.reason is Reason.CONNECT_NOT_FOUND
    with pytest.raises(AssertionError):
        await house.come_back(begun)
    await settled(house)
    assert house.platform.count("revoke") == 2, "the new grant is revoked"
    assert rows(engine, "accounts") == [] and PROFILE not in everything(engine, "erasures")


async def test_an_account_that_is_connected_after_the_deletion_is_a_new_one_and_stays(house: House) -> None:
    account = await connect(house, "1", "ada-handle")
    await house.eraser.delete_profile(CALLER, PROFILE)
    house.clock.offset += timedelta(seconds=1)
    again = await connect(house, "1", "ada-handle")
    assert again.id != account.id
    await settled(house)
    assert (await house.account(again.id)).status is Status.ACTIVE
    events = await house.store.events_of(again.id, limit=9)
    assert events[0].profile_id == PROFILE and events[0].facts["handle"] == "ada-handle"


async def test_a_crash_at_any_step_leaves_nothing_that_is_not_finished_later(
    house: House, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = engine.write
    steps = 0
    for number in range(99):
        profile = f"acme/{number}"
        accounts = [await connect(house, f"{number}-{each}", f"handle-{each}", profile) for each in (1, 2)]
        await Linker(house.store, "me").work_off()
        left = number

        async def dies(work: Any) -> Any:
            nonlocal left
            if not left:
                raise StoreUnavailable("killed")
            left -= 1
            return await write(work)

        with monkeypatch.context() as patched:
            patched.setattr(engine, "write", dies)
            try:
                await house.eraser.delete_profile(CALLER, profile)
                died = False
            except StoreUnavailable:
                died = True
        await house.revoker.drain()
        if number:  # the first dies before anything is noted
            await settled(house)
            assert profile not in everything(engine, "erasures"), number
        receipt = await house.eraser.delete_profile(CALLER, profile)
        assert await outcomes(receipt) == {account.id: CONFIRMED for account in accounts}, number
        steps = number
        if not died and left:
            break
    assert 5 < steps < 20
    assert rows(engine, "accounts") == rows(engine, "grants") == rows(engine, "revocations") == []
    await Linker(house.store, "me").work_off()
    assert (await house.store.verify_chain()).broken is None


async def test_what_was_under_way_and_is_committed_after_the_deletion_is_erased_within_minutes(
    house: House, engine: Engine
) -> None:
    await connect(house, "1", "ada-handle")
    before = micros(await house.store.now())
    await house.eraser.delete_profile(CALLER, PROFILE)
    await house.eraser.work_off()

    def late(tx: Transaction) -> None:
        tx.event(EventKind.CONNECT_BEGUN, account_id=None, profile_id=PROFILE, platform="twitter")
        tx._events[-1]["time"] = before

    await house.store._write(late)
    await settled(house)
    assert PROFILE not in everything(engine, "erasures")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_the_files_hold_nothing_personal_of_a_deleted_profile(
    house: House, engine: Engine, tmp_path: Path
) -> None:
    def seen() -> set[str]:
        files = b"".join(file.read_bytes() for file in tmp_path.glob("accounts.db*"))
        return {text for text in PERSONAL if text.encode() in files}

    for number in range(40):  # over many pages, some of which are split, merged and freed
        await connect(house, str(number), f"ada-handle {number}")
    await with_a_past(house)
    assert seen() == {*PERSONAL}
    await house.eraser.delete_profile(CALLER, "other/1")
    await house.eraser.delete_profile(CALLER, PROFILE)
    assert seen() == {PROFILE}, "the erasure itself, for a while"
    await settled(house)
    await house.store.wipe()
    assert seen() == set()


async def test_many_events_are_erased_a_transaction_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.storage.erase.REDACTED_AT_ONCE", 3)
    await with_a_past(house)
    await house.eraser.delete_profile(CALLER, PROFILE)
    assert (await house.store.list_events(EventFilter(profile_id=PROFILE), after="", size=9)).events == ()
    await Linker(house.store, "me").work_off()
    assert (await house.store.verify_chain()).broken is None


async def test_personal_data_that_was_erased_without_a_record_of_it_breaks_the_chain(
    house: House, engine: Engine
) -> None:
    await with_a_past(house)
    await house.eraser.delete_profile(CALLER, PROFILE)
    await Linker(house.store, "me").work_off()
    database = engine.database
    [event_id, position] = database.execute_sql(
        "SELECT id, chain_position FROM events WHERE profile_id = 'other/1' ORDER BY id"
    ).fetchone()
    database.execute_sql(f"UPDATE events SET personal = NULL, profile_id = '' WHERE id = '{event_id}'")
    database.execute_sql(f"UPDATE audit_chain SET salt = '' WHERE event_id = '{event_id}'")
    broken = (await house.store.verify_chain()).broken
    assert broken is not None and (broken.position, broken.event_id) == (position, event_id)
    assert "no event says so" in broken.problem


async def test_what_is_written_into_an_erased_event_breaks_the_chain(house: House, engine: Engine) -> None:
    await with_a_past(house)
    await house.eraser.delete_profile(CALLER, PROFILE)
    await Linker(house.store, "me").work_off()
    engine.database.execute_sql("UPDATE events SET personal = '{}' WHERE kind = 'personal_data_erased'")
    assert (await house.store.verify_chain()).broken is not None


@pytest.mark.parametrize(
    "caller",
    [
        replace(CALLER, profiles=("other/",)),
        replace(CALLER, profiles=()),
        replace(CALLER, platforms=frozenset({"twitter"})),
    ],
)
async def test_a_caller_that_does_not_see_all_of_a_profile_cannot_delete_it(house: House, caller: Caller) -> None:
    account = await connect(house, "1", "ada-handle")
    with pytest.raises(CallerNotPermitted):
        await house.eraser.delete_profile(caller, PROFILE)
    assert (await house.account(account.id)).status is Status.ACTIVE


async def test_a_deletion_that_cannot_be_recorded_does_not_happen(house: House, engine: Engine) -> None:
    account = await connect(house, "1", "ada-handle")
    engine.database.execute_sql("ALTER TABLE events RENAME TO away")
    with pytest.raises(Exception, match=r"events|database"):
        await house.eraser.delete_profile(CALLER, PROFILE)
    engine.database.execute_sql("ALTER TABLE away RENAME TO events")
    assert (await house.account(account.id)).status is Status.ACTIVE
    assert await house.eraser.work_off() == 0


async def test_an_operator_of_all_profiles_alone_sees_the_erased_events(house: House) -> None:
    from server.accounts.audit import AuditLog

    account = await connect(house, "1", "ada-handle")
    await house.eraser.delete_profile(CALLER, PROFILE)
    which = EventFilter(account_id=account.id)
    log = AuditLog(house.store)
    assert len((await log.page(OPERATOR, which, size=9, after="")).events) == 4
    assert (await log.page(replace(OPERATOR, profiles=("acme/",)), which, size=9, after="")).events == ()


async def test_a_receipt_says_that_a_revocation_was_given_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "GIVEN_UP_TRIES", 2)
    account = await connect(house, "1", "ada-handle")
    house.platform.answer_next("revoke", *[PlatformRefused("an error that names ada", status=503)] * 2)
    receipt = await house.eraser.delete_profile(OPERATOR, PROFILE)
    assert await outcomes(receipt) == {account.id: PENDING}
    house.clock.offset += timedelta(days=31)
    assert await house.revoker.work_off("twitter") == 1
    assert house.observer.seen[-1] == ("revoked", "given_up")
    receipt = await house.eraser.delete_profile(OPERATOR, PROFILE)
    assert await outcomes(receipt) == {account.id: PlatformRevocation.GIVEN_UP}
    found = await house.store.list_events(EventFilter(kind="platform_revocation_given_up"), after="", size=10)
    assert [(each.account_id, each.profile_id, each.facts) for each in found.events] == [
        (account.id, "", {"attempt": 2})
    ]


async def test_what_is_recorded_of_an_account_between_the_request_and_its_erasure_goes_too(
    house: House, engine: Engine
) -> None:
    await connect(house, "1", "ada-handle")
    house.clock.offset += DUE
    await house.store.begin_erasure(PROFILE, caller="web")
    house.clock.offset += timedelta(seconds=1)  # the process dies; others refresh meanwhile
    house.platform.answer_next("refresh", PlatformRefused("an error that names ada", status=503))
    assert await house.refresher.run_once() == 1
    assert PROFILE in everything(engine)
    house.clock.offset += timedelta(seconds=5)
    assert await house.eraser.work_off() == 1
    house.clock.offset += timedelta(minutes=2)
    await house.eraser.work_off()
    left = everything(engine, "erasures")
    assert not [word for word in PERSONAL if word in left]
    assert (await house.store.verify_chain()).broken is None
