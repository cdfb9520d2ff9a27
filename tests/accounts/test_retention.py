"""Retention: revoked accounts and old events go when they were kept for long enough, and not before."""

from datetime import timedelta

import pytest

from server.accounts.audit import Linker
from server.accounts.erase import Retention
from server.accounts.errors import (
    PlatformRefused,
)
from server.accounts.model import PlatformRevocation
from server.storage import revocations
from server.storage.engine import Engine
from tests.accounts.conftest import House
from tests.accounts.erasing import PROFILE, connect, everything, rows, settled
from tests.accounts.script import CALLER, OPERATOR


def retention(house: House) -> Retention:
    return Retention(house.store, revoked_accounts=timedelta(days=90), audit=timedelta(days=400))


async def test_a_revoked_account_is_erased_when_it_was_kept_for_long_enough(house: House, engine: Engine) -> None:
    revoked, pending = await connect(house, "1", "ada-handle"), await connect(house, "2", "other-handle")
    active = await connect(house, "3", "kept-handle")
    await Linker(house.store, "me").work_off()
    await house.revoker.revoke(CALLER, revoked.id)
    house.platform.answer_always("revoke", PlatformRefused("503", status=503))
    await house.revoker.revoke(CALLER, pending.id)
    house.clock.offset += timedelta(days=89)
    await retention(house).work_off()
    assert await house.store.account(revoked.id) is not None
    house.clock.offset += timedelta(days=1, minutes=1)
    await retention(house).work_off()
    assert await house.store.account(revoked.id) is None
    assert {row[0] for row in rows(engine, "accounts")} == {pending.id, active.id}
    house.clock.offset += timedelta(minutes=1)
    await retention(house).work_off()
    events = await house.store.events_of(revoked.id, limit=9)
    assert [event.kind for event in events][-1] == "account_erased" and {event.profile_id for event in events} == {""}
    await Linker(house.store, "me").work_off()
    assert (await house.store.verify_chain()).broken is None
    assert "ada-handle" not in everything(engine)


async def test_the_oldest_events_are_pruned_and_the_chain_holds_from_there(house: House, engine: Engine) -> None:
    await connect(house, "1", "ada-handle")
    await Linker(house.store, "me").work_off()
    await house.eraser.delete_profile(CALLER, PROFILE)
    await settled(house)
    house.clock.offset += timedelta(days=399)
    await connect(house, "2", "other-handle")
    await Linker(house.store, "me").work_off()
    linked = (await house.store.verify_chain()).head.position
    await retention(house).work_off()
    assert len(rows(engine, "audit_chain")) == linked
    house.clock.offset += timedelta(days=2)
    await retention(house).work_off()
    report = await house.store.verify_chain()
    assert (report.broken, report.start.position, report.redacted) == (None, linked - 2, 0)
    assert len(rows(engine, "audit_chain")) == 2 and rows(engine, "erased_accounts") == rows(engine, "erasures") == []
    assert [event.kind for event in report.tail] == ["audit_pruned"]
    await Linker(house.store, "me").work_off()
    assert (await house.store.verify_chain()).broken is None


async def test_a_chain_is_not_pruned_past_where_it_is_broken(house: House, engine: Engine) -> None:
    await connect(house, "1", "ada-handle")
    await Linker(house.store, "me").work_off()
    engine.database.execute_sql("DELETE FROM events WHERE chain_position = 2")
    house.clock.offset += timedelta(days=401)
    await retention(house).work_off()
    broken = (await house.store.verify_chain()).broken
    assert broken is not None and broken.position == 2


async def test_retention_keeps_an_account_of_which_one_revocation_is_given_up_and_another_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "GIVEN_UP_TRIES", 1)
    account = await connect(house, "1", "ada-handle")
    await connect(house, "1", "ada-handle")
    await house.store.revoke_account(account.id, caller="web", supported=True, ends_user_grant=False)
    house.clock.offset += timedelta(days=31)
    [first, second] = await house.store.claim_revocations("twitter", lease=timedelta(minutes=1), limit=10)
    assert "until it confirms" in (await house.explainer.explain(OPERATOR, account.id)).next_step
    assert await house.store.retry_revocation(first, due_time=await house.store.now(), error="no")
    retention = Retention(house.store, revoked_accounts=timedelta(days=1), audit=timedelta(days=400))
    await retention.work_off()
    assert (await house.account(account.id)).platform_revocation is PlatformRevocation.GIVEN_UP
    assert "has not confirmed in a month" in (await house.explainer.explain(OPERATOR, account.id)).next_step
    await house.store.finish_revocation(second)
    await retention.work_off()
    assert await house.store.account(account.id) is None
