"""The engine: writes that wait share a commit, and none of them harms another."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from server.accounts.errors import StoreUnavailable
from server.storage.engine import DatabaseInUse, SqliteEngine
from server.storage.schema import CounterRow


def add(name: str) -> Any:
    return lambda database: CounterRow.insert(name=name, value=1).execute(database)


def add_and_fail(database: Any) -> None:
    CounterRow.insert(name="bad", value=1).execute(database)
    raise ValueError("after it has written")


def names(engine: SqliteEngine) -> set[str]:
    return {row[0] for row in engine.database.execute_sql("SELECT name FROM counters").fetchall()} - {"events"}


async def together(engine: SqliteEngine, *works: Any) -> list[Any]:
    """Makes the writer find all works waiting at once."""
    go_on = threading.Event()
    first = asyncio.ensure_future(engine.write(lambda _: go_on.wait()))
    await asyncio.sleep(0)
    waiting = [asyncio.ensure_future(engine.write(work)) for work in works]
    await asyncio.sleep(0)
    go_on.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_writes_that_wait_share_one_commit(engine: SqliteEngine) -> None:
    commits = 0

    def count() -> None:
        nonlocal commits
        commits += 1

    await engine.write(lambda database: database.connection().commit_hook(count))
    commits = 0
    await together(engine, *[add(str(number)) for number in range(20)])
    assert len(names(engine)) == 20
    assert commits <= 3


async def test_a_write_that_fails_leaves_nothing_and_its_neighbours_alone(engine: SqliteEngine) -> None:
    results = await together(engine, add("one"), add_and_fail, add("two"))
    assert [type(result) for result in results] == [type(results[0]), ValueError, type(results[0])]
    assert names(engine) == {"one", "two"}


async def test_a_write_that_fails_alone_leaves_nothing(engine: SqliteEngine) -> None:
    with pytest.raises(ValueError, match="after it has written"):
        await engine.write(add_and_fail)
    assert names(engine) == set()


async def test_a_caller_that_gives_up_does_not_undo_a_write(engine: SqliteEngine) -> None:
    writing = asyncio.ensure_future(engine.write(add("kept")))
    await asyncio.sleep(0)
    writing.cancel()
    await engine.write(lambda _: None)
    assert names(engine) == {"kept"}


async def test_a_locked_database_is_unavailable_and_works_again_when_it_is_free(
    engine: SqliteEngine, tmp_path: Path
) -> None:
    import cysqlite

    engine.database.connection()
    await engine.write(lambda database: database.execute_sql("PRAGMA busy_timeout = 50"))
    other = cysqlite.Connection(str(tmp_path / "accounts.db"))
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable):
        await engine.write(add("late"))
    assert await engine.read(lambda database: database.execute_sql("SELECT count(*) FROM counters").fetchone()[0]) == 1
    other.execute("ROLLBACK")
    other.close()
    await engine.write(add("in time"))
    assert names(engine) == {"in time"}


def test_one_file_has_one_process(engine: SqliteEngine, tmp_path: Path) -> None:
    with pytest.raises(DatabaseInUse):
        SqliteEngine(tmp_path / "accounts.db")


def test_it_is_opened_so_that_a_commit_is_on_disk(engine: SqliteEngine) -> None:
    def pragma(name: str) -> Any:
        return engine.database.execute_sql(f"PRAGMA {name}").fetchone()[0]

    assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", 2)
    assert engine.database.server_version >= (3, 51, 3)
