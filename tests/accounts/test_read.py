"""Reading: what a caller may not see does not exist for it."""

import dataclasses

import pytest

from server.accounts.callers import Caller, Permission
from server.accounts.errors import AccountNotFound, CallerNotPermitted, UnknownPlatform
from server.accounts.model import Account, Status
from tests.accounts.conftest import House
from tests.accounts.script import CALLER

MISSING = "01930000-0000-7000-8000-000000000000"
STRANGERS = [
    dataclasses.replace(CALLER, name="stranger", profiles=("other/",)),
    dataclasses.replace(CALLER, name="stranger", platforms=frozenset({"linkedin"})),
    dataclasses.replace(CALLER, name="stranger", profiles=()),
]


async def listed(house: House, caller: Caller, profile_id: str | None, **fields: object) -> list[Account]:
    which: dict[str, object] = {"platform": None, "statuses": frozenset(), "size": 10, "after": "", **fields}
    page = await house.reader.list(caller, profile_id=profile_id, **which)  # type: ignore[arg-type]
    return list(page.accounts)


@pytest.mark.parametrize("stranger", STRANGERS, ids=["profile", "platform", "nothing"])
async def test_a_foreign_account_is_answered_in_the_words_of_a_missing_one(house: House, stranger: Caller) -> None:
    account = await house.connect()
    told = []
    for account_id in (account.id, MISSING):
        for ask in (house.reader.get, house.revoker.revoke):
            with pytest.raises(AccountNotFound) as caught:
                await ask(stranger, account_id)
            told.append((caught.value.text.replace(account_id, "?"), set(caught.value.facts), caught.value.reason))
    assert len({str(each) for each in told}) == 1
    assert (await house.account(account.id)).status is Status.ACTIVE
    assert await listed(house, stranger, "p1") == []
    assert await listed(house, stranger, None) == []


async def test_all_profiles_are_listed_only_with_the_permission_and_within_the_prefixes(house: House) -> None:
    for profile_id in ("acme/1", "acme/2", "other"):
        await house.connect(profile_id=profile_id)
    caller = dataclasses.replace(CALLER, profiles=("acme/",))
    assert [account.profile_id for account in await listed(house, caller, None)] == ["acme/1", "acme/2"]
    less = dataclasses.replace(caller, permissions=frozenset({Permission.READ}))
    with pytest.raises(CallerNotPermitted):
        await listed(house, less, None)
    assert len(await listed(house, less, "acme/1")) == 1


async def test_an_unknown_platform_in_a_filter_is_told(house: House) -> None:
    with pytest.raises(UnknownPlatform):
        await listed(house, CALLER, "p1", platform="friendster")
