"""A page far down a list comes as fast as the first one (row E5): it is found by where it begins, not counted off."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.fill import account_id, fill
from server.accounts.model import AccountFilter
from server.storage.engine import SqliteEngine
from server.storage.postgres import PostgresEngine
from server.storage.store import Store
from server.storage.vault import Vault
from tests.moulds import cast_postgres, cast_sqlite

SIZE, LOOKS = 20, 40
EVERYTHING = AccountFilter()


async def seconds(store: Store, after: str) -> float:
    """What half of some looks at a page stay below."""
    took = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        page = await store.list_accounts(EVERYTHING, after=after, size=SIZE)
        took.append(time.perf_counter() - began)
        assert len(page.accounts) == SIZE
    return statistics.median(took)


@pytest.mark.alone
@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_e5_the_last_page_of_very_many_comes_as_fast_as_the_first(
    tmp_path: Path, request: pytest.FixtureRequest, vault: Vault, new_id: Callable[[], str], kind: str, count: int
) -> None:
    engine: SqliteEngine | PostgresEngine
    if kind == "sqlite":
        cast_sqlite(tmp_path / "accounts.db")
        fill(tmp_path / "accounts.db", count)
        engine = SqliteEngine(tmp_path / "accounts.db")
    else:
        url = cast_postgres(request.getfixturevalue("postgres"))
        fill(url, count)
        engine = PostgresEngine(url)
    try:
        store = Store(engine, vault, new_id)
        first = await seconds(store, after="")
        assert await seconds(store, after=account_id(count - SIZE - 1)) < 3 * first
    finally:
        engine.close()
