"""Migrations, row I2: one that dies at any statement leaves whole steps behind, and the next run finishes it."""

import itertools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playhouse.migrations import Runner

from sandbox.local import Local
from sandbox.ports import free_port
from server.parts import load_settings, open_engine
from server.storage.engine import Engine, SqliteEngine
from server.storage.keyring import KeyRing
from server.storage.migrate import MIGRATIONS, SchemaMismatch, check_schema, migrate
from server.storage.postgres import PostgresEngine
from tests.faults.tracing import traced
from tests.postgres import fresh_database


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Engine]:
    """Makes empty databases."""
    numbers = itertools.count()

    def make() -> Engine:
        if request.param == "sqlite":
            return SqliteEngine(tmp_path / f"{next(numbers)}.db")
        return PostgresEngine(fresh_database(request.getfixturevalue("postgres")))

    return make


class Died(BaseException):
    """The process is gone; nothing of it runs any more."""


def die_after(engine: Engine, statements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From that statement on nothing reaches the database; what was not committed is rolled back by it."""
    left = iter(range(statements))
    execute_sql = engine.database.execute_sql

    def run(sql: str, *rest: Any, **how: Any) -> Any:
        if next(left, None) is None:
            raise Died
        return execute_sql(sql, *rest, **how)

    monkeypatch.setattr(engine.database, "execute_sql", run)


def schema(engine: Engine) -> dict[str, Any]:
    database = engine.database
    return {
        table: (
            [
                (column.name, column.data_type, column.null, column.primary_key)
                for column in database.get_columns(table)
            ],
            sorted((index.name, tuple(index.columns), index.unique) for index in database.get_indexes(table)),
        )
        for table in database.get_tables()
    }


def applied(engine: Engine) -> list[bool]:
    return [bool(step.applied) for step in Runner(engine.database, str(MIGRATIONS)).status()]


def test_i2_a_migration_that_dies_at_any_statement_is_finished_by_the_next_run(
    empty: Callable[[], Engine], ring: KeyRing
) -> None:
    whole = empty()
    migrate(whole.database, ring)
    wanted = schema(whole)
    whole.close()
    stages = set()
    # A new database takes PostgreSQL a while; there it dies at every fourth statement.
    for statements in itertools.count(step=4 if whole.locks_rows else 1):
        engine = empty()
        with pytest.MonkeyPatch.context() as monkeypatch:
            die_after(engine, statements, monkeypatch)
            try:
                migrate(engine.database, ring)
            except Died:
                finished = False
            else:
                finished = True
        engine.database.close()  # a process that died has no transaction any more
        engine.database.connect()
        stages.add(sum(applied(engine)))
        if not finished:
            migrate(engine.database, ring)
        check_schema(engine.database)
        assert schema(engine) == wanted, f"died after {statements} statements"
        engine.close()
        if finished:
            break
    assert len(stages) > len(list(MIGRATIONS.glob("0*.py"))) / 2, "between migrations, too"


def test_i2_a_migration_of_a_large_table_takes_as_long_as_it_takes(
    postgres: str, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = PostgresEngine(fresh_database(postgres))
    limits = []
    up = Runner.up

    def look_and_migrate(runner: Runner) -> list[str]:
        limits.append(engine.database.execute_sql("SHOW statement_timeout").fetchone()[0])
        return up(runner)  # type: ignore[no-any-return]

    monkeypatch.setattr(Runner, "up", look_and_migrate)
    migrate(engine.database, ring)
    assert limits == ["0"]
    engine.close()


def killed_at(when: int, folder: Path) -> bool:
    """Whether a migration was killed at that of its syncs, not through before; what it left, the next run finished."""
    local = Local(folder, ports={part: free_port() for part in ("grpc", "http", "sandbox")})
    local.write_files()
    local.command("keys", "new")
    log = folder / "accounts.db-wal"
    rule = f"fdatasync,fsync:signal=SIGKILL:when={when}"
    ended = traced(local.server_command("migrate"), folder / "trace", rule, log)
    assert ended in (0, -signal.SIGKILL)
    local.command("migrate")
    engine = open_engine(load_settings(local.config_file))
    check_schema(engine.database)
    engine.close()
    return ended != 0


@pytest.mark.parametrize("when", [2, 9])
def test_i2_a_migration_that_is_killed_at_a_sync_is_finished_by_the_next_run(tmp_path: Path, when: int) -> None:
    assert killed_at(when, tmp_path / "deployment")


@pytest.mark.long
def test_i2_a_migration_that_is_killed_at_any_of_its_syncs_is_finished_by_the_next_run(tmp_path: Path) -> None:
    for when in itertools.count(1):
        if not killed_at(when, tmp_path / str(when)):
            break
    assert when > len(list(MIGRATIONS.glob("0*.py"))), "each migration is a commit"


def test_i2_a_server_refuses_the_schema_of_a_newer_version(engine: Engine, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    for migration in MIGRATIONS.glob("0*.py"):
        (newer / migration.name).write_text(migration.read_text())
    (newer / "9999_newer.py").write_text("def up(migrator, db):\n    db.execute_sql('SELECT 1')\n")
    Runner(engine.database, str(newer)).up()
    with pytest.raises(SchemaMismatch, match="migrated by a newer version"):
        check_schema(engine.database)
