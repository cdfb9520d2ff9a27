"""The SQLite engine: writes that wait share a commit, and none of them harms another."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import peewee
import pytest
from playhouse.cysqlite_ext import CySqliteDatabase

from server.accounts.errors import StoreUnavailable
from server.storage.engine import DatabaseInUse, DatabaseUnusable, SqliteEngine
from server.storage.schema import CounterRow


def add(name: str) -> Any:
    return lambda database: CounterRow.insert(name=name, value=1).execute(database)


def add_and_fail(database: Any) -> None:
    CounterRow.insert(name="bad", value=1).execute(database)
    raise ValueError("after it has written")


def names(sqlite: SqliteEngine) -> set[str]:
    return {row[0] for row in sqlite.database.execute_sql("SELECT name FROM counters").fetchall()} - {
        "events",
        "heartbeat",
        "keys",
    }


async def together(sqlite: SqliteEngine, *works: Any) -> list[Any]:
    """Makes the writer find all works waiting at once."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        begun.set()
        go_on.wait()

    first = asyncio.ensure_future(sqlite.write(hold))
    await asyncio.to_thread(begun.wait)
    waiting = [asyncio.ensure_future(sqlite.write(work)) for work in works]
    await asyncio.sleep(0)
    go_on.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_writes_that_wait_share_one_commit(sqlite: SqliteEngine) -> None:
    commits = 0

    def count() -> None:
        nonlocal commits
        commits += 1

    await sqlite.write(lambda database: database.connection().commit_hook(count))
    commits = 0
    await together(sqlite, *[add(str(number)) for number in range(20)])
    assert len(names(sqlite)) == 20
    assert commits <= 3


async def test_behind_a_disk_that_hangs_only_so_many_writes_wait(
    sqlite: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.storage.engine.MOST_WAITING", 10)
    results = await together(sqlite, *[add(str(number)) for number in range(12)])
    assert [type(each) for each in results[10:]] == [StoreUnavailable, StoreUnavailable]
    assert names(sqlite) == {str(number) for number in range(10)}
    await sqlite.write(add("later"))


async def test_a_write_that_fails_leaves_nothing_and_its_neighbours_alone(sqlite: SqliteEngine) -> None:
    results = await together(sqlite, add("one"), add_and_fail, add("two"))
    assert [type(result) for result in results] == [type(results[0]), ValueError, type(results[0])]
    assert names(sqlite) == {"one", "two"}


async def test_a_write_that_fails_alone_leaves_nothing(sqlite: SqliteEngine) -> None:
    with pytest.raises(ValueError, match="after it has written"):
        await sqlite.write(add_and_fail)
    assert names(sqlite) == set()


async def test_a_caller_that_gives_up_does_not_undo_a_write(sqlite: SqliteEngine) -> None:
    writing = asyncio.ensure_future(sqlite.write(add("kept")))
    await asyncio.sleep(0)
    writing.cancel()
    await sqlite.write(lambda _: None)
    assert names(sqlite) == {"kept"}


async def test_a_locked_database_is_unavailable_and_works_again_when_it_is_free(
    sqlite: SqliteEngine, tmp_path: Path
) -> None:
    import cysqlite

    sqlite.database.connection()
    await sqlite.write(lambda database: database.execute_sql("PRAGMA busy_timeout = 50"))
    other = cysqlite.Connection(str(tmp_path / "accounts.db"))
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable):
        await sqlite.write(add("late"))
    assert await sqlite.read(lambda database: database.execute_sql("SELECT count(*) FROM counters").fetchone()[0]) == 3
    other.execute("ROLLBACK")
    other.close()
    await sqlite.write(add("in time"))
    assert names(sqlite) == {"in time"}


async def test_a_writer_that_could_not_open_the_file_at_first_writes_as_soon_as_it_can(
    sqlite: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptors_left(**_: Any) -> None:
        raise peewee.OperationalError("unable to open database file")

    with monkeypatch.context() as patched:
        patched.setattr(sqlite.database, "connect", no_descriptors_left)
        with pytest.raises(StoreUnavailable):
            await sqlite.write(add("too early"))
    await sqlite.write(add("in time"))
    assert names(sqlite) == {"in time"}


async def test_a_stop_tries_a_locked_file_once_and_not_for_all_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.storage.engine.GROUP", 1)
    engine = SqliteEngine(tmp_path / "other.db")
    begun, go_on, tries = threading.Event(), threading.Event(), []

    def hold(_: Any) -> None:
        begun.set()
        go_on.wait()

    def locked(kind: str) -> None:
        tries.append(kind)
        raise peewee.OperationalError("database is locked")

    waiting = [asyncio.ensure_future(engine.write(work)) for work in (hold, *map(add, "abcde"))]
    await asyncio.to_thread(begun.wait)
    closing = asyncio.create_task(asyncio.to_thread(engine.close))
    until = time.monotonic() + 5
    while not engine._closed:
        assert time.monotonic() < until
        await asyncio.sleep(0)
    monkeypatch.setattr(engine.database, "atomic", locked)
    go_on.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    await closing
    assert [type(each) for each in results] == [type(None), *[StoreUnavailable] * 5]
    assert len(tries) == 1


def test_one_file_has_one_process(sqlite: SqliteEngine, tmp_path: Path) -> None:
    with pytest.raises(DatabaseInUse):
        SqliteEngine(tmp_path / "accounts.db")


@pytest.mark.parametrize("version", [(3, 7, 0), (3, 40, 1), (3, 51, 2)])
def test_a_sqlite_that_can_lose_commits_is_not_used_and_makes_no_file(
    tmp_path: Path, version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CySqliteDatabase, "server_version", version)
    with pytest.raises(DatabaseUnusable, match=r"can lose commits; 3\.51\.3 or newer is needed"):
        SqliteEngine(tmp_path / "folder" / "accounts.db")
    assert list(tmp_path.iterdir()) == []


def test_it_is_opened_so_that_a_commit_is_on_disk(sqlite: SqliteEngine) -> None:
    def pragma(name: str) -> Any:
        return sqlite.database.execute_sql(f"PRAGMA {name}").fetchone()[0]

    assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", 2)
    assert sqlite.database.server_version >= (3, 51, 3)
