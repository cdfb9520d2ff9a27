"""Who may read which events, and that an event is attributed to the call that caused it and to no other."""

from dataclasses import replace
from datetime import timedelta

import pytest

from server.accounts.audit import ORIGIN, AuditLog, Linker, Origin
from server.accounts.errors import ConnectRefused, PlatformRefused, StoreUnavailable
from server.accounts.events import EventFilter
from server.storage.transaction import Transaction
from tests.accounts.conftest import House
from tests.accounts.script import CALLER, OPERATOR

ALL = EventFilter()


async def test_a_caller_sees_the_events_of_its_profiles_and_platforms_alone(house: House) -> None:
    log = AuditLog(house.store)
    await house.connect(profile_id="acme/1")
    await house.connect(profile_id="other/1")
    acme = replace(OPERATOR, profiles=("acme/",))

    async def profiles(caller: object, which: EventFilter = ALL) -> set[str]:
        page = await log.page(caller, which, size=50, after="")  # type: ignore[arg-type]
        return {event.profile_id for event in page.events}

    assert await profiles(OPERATOR) == {"acme/1", "other/1"}
    assert await profiles(acme) == {"acme/1"}
    assert await profiles(acme, EventFilter(profile_id="acme/1")) == {"acme/1"}
    assert await profiles(acme, EventFilter(profile_id="other/1")) == set()
    assert await profiles(replace(OPERATOR, platforms=frozenset({"linkedin"}))) == set()
    assert await profiles(replace(OPERATOR, platforms=frozenset())) == set()
    assert await profiles(replace(OPERATOR, profiles=())) == set()


async def test_a_refresh_for_a_caller_is_attributed_to_its_call(house: House) -> None:
    account = await house.connect()
    house.clock.offset += timedelta(minutes=30)
    token = ORIGIN.set(lambda: Origin("ipv4:10.0.0.7:1", "request-7"))
    await house.fresh.refresh(CALLER, account.id, None)
    ORIGIN.reset(token)
    [event] = [e for e in await house.store.events_of(account.id, limit=9) if e.kind == "refresh_requested"]
    assert (event.caller, event.peer, event.request_id) == ("web", "ipv4:10.0.0.7:1", "request-7")


async def test_a_failed_connect_tells_its_reason_as_its_result(house: House) -> None:
    state = await house.begin()
    code = await house.come_back(state)
    house.platform.answer_next("identify", PlatformRefused("503", status=503))
    with pytest.raises(ConnectRefused):
        await house.complete(code)
    page = await AuditLog(house.store).page(OPERATOR, EventFilter(kind="connect_failed"), size=9, after="")
    assert [event.result for event in page.events] == ["IDENTITY_UNAVAILABLE"]


async def test_the_whole_story_of_an_account_is_in_the_chain(house: House) -> None:
    account = await house.connect()
    await house.revoker.revoke(CALLER, account.id)
    await Linker(house.store, "me").work_off()
    events = await house.store.events_of(account.id, limit=9)
    assert [event.kind for event in events] == ["connected", "revoked", "platform_revocation_confirmed"]
    assert all(event.position for event in events)
    assert (await house.store.verify_chain()).broken is None


async def test_a_revoke_that_cannot_be_audited_is_refused_and_changes_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await house.connect()

    def full(_: Transaction) -> None:
        raise StoreUnavailable("database or disk is full")

    with monkeypatch.context() as disk:
        disk.setattr(Transaction, "write_events", full)
        with pytest.raises(StoreUnavailable):
            await house.revoker.revoke(CALLER, account.id)
    assert await house.account(account.id) == account
    assert await house.revoker.work_off("twitter") == 0 and house.platform.count("revoke") == 0
