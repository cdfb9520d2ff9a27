"""A database that takes no writes: nothing is sent, reads go on, and it goes on by itself."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from server.accounts.errors import StoreUnavailable
from server.storage.engine import Engine
from server.storage.postgres import PostgresEngine
from tests.accounts.conftest import House
from tests.accounts.due import DUE
from tests.accounts.script import CALLER
from tests.postgres import url_of


@pytest.fixture
def read_only(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Makes the database read-only, or lets it be written again."""

    def on_sqlite(on: bool) -> None:
        database, connect = engine.database, type(engine.database).connect

        def connects(**how: Any) -> None:
            connect(database, **how)
            database.execute_sql(f"PRAGMA query_only = {int(on)}")

        monkeypatch.setattr(database, "connect", connects)  # which the writer does before each transaction

    def on_postgres(on: bool) -> None:
        assert isinstance(engine, PostgresEngine)
        change = SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        may_write = "-c default_transaction_read_only=off"
        with psycopg.connect(url_of(engine), autocommit=True, options=may_write) as operator:
            operator.execute(change.format(Identifier(operator.info.dbname), Literal("on" if on else "off")))
            operator.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}".encode())

    return on_postgres if engine.locks_rows else on_sqlite


async def test_a_database_that_is_read_only_for_a_while_costs_nothing_and_needs_no_hand(
    house: House, read_only: Callable[[bool], None]
) -> None:
    account = await house.connect()
    house.clock.offset += DUE
    read_only(True)
    with pytest.raises(StoreUnavailable):
        await house.refresher.run_once()
    assert await house.refresher.run_once() == 0
    assert house.platform.count("refresh") == 0
    with pytest.raises(StoreUnavailable):
        await house.store.ping()
    assert await house.reader.get(CALLER, account.id) == account
    read_only(False)
    assert await house.refresher.run_once() == 1
    await house.store.ping()
    assert (await house.account(account.id)).last_refresh_time is not None
