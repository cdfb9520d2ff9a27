"""The records of uses beside the other events of an account: they neither drown them nor make their lists slow."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from server.accounts.audit import ORIGIN
from server.accounts.calls import Use, UseFailed
from server.accounts.events import USES, EventFilter
from server.accounts.model import Account
from server.storage.engine import SqliteEngine
from server.storage.store import Store
from server.storage.vault import Vault
from tests.storage.make import connected


async def used(store: Store, account: Account, new_id: Callable[[], str], times: int) -> list[Use]:
    uses = [Use(new_id(), account, "publisher", "POST", "/2/tweets", "ipv4:1", f"r-{n}") for n in range(times)]
    for use in uses:
        await store.record_use(use)
    return uses


async def test_the_story_of_an_account_is_told_without_its_uses(store: Store, new_id: Callable[[], str]) -> None:
    account = await connected(store)
    before = await store.events_of(account.id, limit=200)
    [use, *_] = await used(store, account, new_id, 3)
    await store.record_use_failed(UseFailed(use, "unknown", 0))
    assert await store.events_of(account.id, limit=200) == before
    page = await store.list_events(EventFilter(account_id=account.id, kinds=USES), after="", size=10)
    assert [event.result for event in page.events] == ["unknown", "sent", "sent", "sent"]
    assert {(event.caller, event.facts["route"], event.peer) for event in page.events} == {
        ("publisher", "/2/tweets", "ipv4:1")
    }
    assert ORIGIN.get()().peer == "", "each use brings its origin"


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (lambda store: store.events_of("a", limit=200), "events_story"),
        (
            lambda store: store.list_events(EventFilter(account_id="a", kinds=USES), after="", size=50),
            "events_account_id_time_id",
        ),
        (
            lambda store: store.list_events(EventFilter(profile_id="p", kinds=USES), after="", size=50),
            "events_profile_id_time_id",
        ),
    ],
    ids=["story", "usage of an account", "usage of a profile"],
)
async def test_no_list_sorts_all_the_uses_of_an_account(
    sqlite: SqliteEngine, vault: Vault, new_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch, ask: Any, index: str
) -> None:
    asked: list[tuple[str, Any]] = []
    execute = sqlite.database.execute_sql

    def noted(sql: str, parameters: Any = None) -> Any:
        asked.append((sql, parameters))
        return execute(sql, parameters)

    monkeypatch.setattr(sqlite.database, "execute_sql", noted)
    await ask(Store(sqlite, vault, new_id))
    [(sql, parameters)] = [each for each in asked if re.search(r"\bevents\b", each[0])]
    plan = " ".join(str(row[-1]) for row in execute(f"EXPLAIN QUERY PLAN {sql}", parameters))
    assert f"USING INDEX {index}" in plan
    assert "TEMP B-TREE" not in plan
