"""The contract of every store: how accounts read back, and in which order their changes are told."""

import asyncio
from datetime import timedelta

from server.accounts.model import AccountFilter, Status, StatusReason
from server.storage.clock import Clock
from server.storage.engine import Engine
from server.storage.store import Store
from tests.storage.make import connected
from tests.storage.rows import events


async def test_an_account_reads_back_as_it_was_connected(store: Store) -> None:
    account = await connected(store, scopes=("users.read", "tweet.read"))
    again = await store.account(account.id)
    assert again == account
    assert (account.status, account.status_reason) == (Status.ACTIVE, StatusReason.NONE)
    assert (account.handle, account.platform_user_id, account.profile_id) == ("ada", "1", "p1")
    assert account.scopes == ("tweet.read", "users.read")
    assert account.missing_scopes == ("offline.access",)
    assert account.access_token_expire_time is not None
    assert account.last_refresh_time is None


async def test_a_missing_account_is_none(store: Store) -> None:
    assert await store.account("0193b0a0-0000-7000-8000-000000000000") is None


async def test_pages_are_in_the_order_of_ids_and_hold_every_account_once(store: Store) -> None:
    made = [await connected(store, user=str(n)) for n in range(7)]
    seen: list[str] = []
    after = ""
    for expected_more in (True, True, False):
        page = await store.list_accounts(AccountFilter(profile_id="p1"), after=after, size=3)
        assert page.more is expected_more
        seen += [account.id for account in page.accounts]
        after = seen[-1]
    assert seen == sorted(account.id for account in made)


async def test_a_list_shows_only_what_the_filter_lets_through(store: Store, clock: Clock) -> None:
    first = await connected(store, profile_id="acme/1", user="1")
    await connected(store, profile_id="acme/2", user="2", due=None, life=timedelta(minutes=1), refresh_token=False)
    await connected(store, profile_id="acmeX", user="3")
    await connected(store, profile_id="ACME/3", user="4")
    await connected(store, profile_id="a%me/5", user="5")

    async def listed(which: AccountFilter) -> list[str]:
        return [account.profile_id for account in (await store.list_accounts(which, after="", size=50)).accounts]

    assert await listed(AccountFilter(profile_prefixes=("acme/",))) == ["acme/1", "acme/2"]
    assert await listed(AccountFilter(profile_prefixes=("a%me/",))) == ["a%me/5"]
    assert await listed(AccountFilter(profile_prefixes=("acme/1", "acmeX"))) == ["acme/1", "acmeX"]
    assert await listed(AccountFilter(profile_prefixes=())) == []
    assert await listed(AccountFilter(platforms=frozenset())) == []
    assert await listed(AccountFilter(platforms=frozenset({"linkedin"}))) == []
    await store.revoke_account(first.id, caller="web", supported=True, ends_user_grant=False)
    assert await listed(AccountFilter(statuses=frozenset({Status.REVOKED}))) == ["acme/1"]
    assert len(await listed(AccountFilter(statuses=frozenset({Status.ACTIVE, Status.REVOKED})))) == 5


async def test_who_may_see_nothing_gets_nothing_whoever_listed_before(store: Store) -> None:
    account = await connected(store)
    everything = AccountFilter()
    for nothing in (AccountFilter(profile_prefixes=()), AccountFilter(platforms=frozenset())):
        for which, expected in ((everything, [account.id]), (nothing, []), (everything, [account.id])):
            page = await store.list_accounts(which, after="", size=10)
            assert [each.id for each in page.accounts] == expected


async def test_changes_of_accounts_are_numbered_in_the_order_of_their_commits(store: Store, engine: Engine) -> None:
    accounts = await asyncio.gather(*(connected(store, user=str(n)) for n in range(20)))
    await asyncio.gather(
        *(store.revoke_account(a.id, caller="web", supported=True, ends_user_grant=False) for a in accounts)
    )
    numbers = [number for number, *_ in events(engine) if number is not None]
    assert sorted(numbers) == list(range(1, 41))
    assert all(number is None for number, kind, _ in events(engine) if kind == "connect_begun")


async def test_a_write_that_fails_leaves_nothing_and_harms_no_other_in_its_group(store: Store, engine: Engine) -> None:
    good = [store.revoke_account((await connected(store, user=str(n))).id, caller="web", supported=True,
                                 ends_user_grant=False) for n in range(3)]  # fmt: skip
    bad = store.revoke_account("missing", caller="web", supported=True, ends_user_grant=False)
    results = await asyncio.gather(*good[:1], bad, *good[1:], return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [False, True, False, False]
