"""Many accounts are revoked at once, by a command beside a running service: after a theft there is no time."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner, Result
from synposter_accounts import AccountStatus

from server.accounts.events import EventFilter
from server.accounts.model import Account, AccountFilter
from server.accounts.ports import Store
from server.commands import mass_revoke
from server.commands.main import main
from server.commands.operate import operator
from tests.e2e.conftest import Whole


async def revoke(whole: Whole, *words: str) -> Result:
    command = ["--config", str(whole.local.config_file), "accounts", "revoke", *words]
    return await asyncio.to_thread(CliRunner().invoke, main, command)


async def statuses(whole: Whole, *ids: str) -> list[AccountStatus]:
    return [(await whole.accounts.get(account_id)).status for account_id in ids]


async def test_every_account_of_a_platform_is_revoked_here_and_then_there(whole: Whole) -> None:
    ada, grace = await whole.connect("ada"), await whole.connect("grace")
    other = await whole.connect("ada", platform="linkedin")
    done = await revoke(whole, "--platform", "twitter", "--yes")
    assert done.exit_code == 0 and "2 accounts revoked" in done.output, done.output
    assert await statuses(whole, ada.id, grace.id, other.id) == [
        AccountStatus.REVOKED, AccountStatus.REVOKED, AccountStatus.ACTIVE,
    ]  # fmt: skip
    assert await whole.app.revoker.work_off("twitter") == 2
    assert [grant["alive"] for grant in await whole.sandbox.ledger()].count(True) == 1
    events = (await whole.app.store.list_events(EventFilter(kind="revoked"), after="", size=10)).events
    assert {(event.caller, event.account_id) for event in events} == {
        (f"operator {operator()}", ada.id), (f"operator {operator()}", grace.id),
    }  # fmt: skip
    again = await revoke(whole, "--platform", "twitter", "--yes")
    assert again.exit_code == 0 and "there are no such accounts" in again.output


async def test_an_account_that_is_erased_meanwhile_stops_nothing(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await whole.connect("ada")
    listed = mass_revoke.pages

    async def pages(store: Store, which: AccountFilter) -> AsyncIterator[tuple[Account, ...]]:
        async for some in listed(store, which):
            yield (*(each._replace(id=str(uuid.uuid4())) for each in some), *some)

    monkeypatch.setattr(mass_revoke, "pages", pages)
    which = mass_revoke.chosen(whole.app.settings, None, "", everything=True)
    await mass_revoke.revoke_all(whole.app.settings, which, lambda _: None)
    assert await statuses(whole, ada.id) == [AccountStatus.REVOKED]


async def test_one_that_was_stopped_goes_on_with_those_that_are_left(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [await whole.connect(name) for name in ("ada", "grace")]
    monkeypatch.setattr(mass_revoke, "AT_ONCE", 1)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    which = mass_revoke.chosen(whole.app.settings, None, "", everything=True)
    with pytest.raises(KeyboardInterrupt):
        await mass_revoke.revoke_all(whole.app.settings, which, stop)
    assert sorted(await statuses(whole, *(each.id for each in accounts))) == [
        AccountStatus.ACTIVE, AccountStatus.REVOKED,
    ]  # fmt: skip
    assert await mass_revoke.revoke_all(whole.app.settings, which, lambda _: None) == 1


async def test_it_asks_with_the_count_and_wants_to_be_told_which(whole: Whole) -> None:
    account = await whole.connect("ada")
    for words, told in (
        ((), "say which"),
        (("--platform", "myspace", "--yes"), "is not registered"),
        (("--all",), "1 account to be revoked, here and at their platforms. Go on?"),
        (("--profile", "nobody/"), "there are no such accounts"),
    ):
        assert told in (await revoke(whole, *words)).output
    assert await statuses(whole, account.id) == [AccountStatus.ACTIVE]
