"""What all tests share: a key ring, a vault, a real store on a temporary database, and time that is moved."""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import uuid_utils

from sandbox.local import Local
from server.storage.clock import Clock
from server.storage.engine import Engine, SqliteEngine
from server.storage.keyring import KeyRing
from server.storage.postgres import PostgresEngine
from server.storage.store import Store
from server.storage.vault import Vault
from tests.forked import launch
from tests.moulds import cast_postgres, cast_ring, cast_sqlite
from tests.postgres import NoPostgres, cluster, drop_database


@pytest.fixture(autouse=True)
def forked_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers and sandboxes are forks, unless the test is marked `exec`."""
    if request.node.get_closest_marker("exec") is None:
        monkeypatch.setattr(Local, "launch", staticmethod(launch))


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return cast_ring(tmp_path / "keys.json")


@pytest.fixture
def vault(ring: KeyRing) -> Vault:
    return Vault(ring)


@pytest.fixture
def clock(engine: Engine) -> Clock:
    """The store's time; `clock.offset += timedelta(...)` moves it."""
    return engine.clock


@pytest.fixture
def new_id() -> Callable[[], str]:
    return lambda: str(uuid_utils.uuid7())


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a throw-away cluster, for the whole run."""
    try:
        with cluster() as url:
            yield url
    except NoPostgres as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A migrated, empty database on each kind of store; its key ring is in the test's folder."""
    yield request.getfixturevalue("sqlite" if request.param == "sqlite" else "on_postgres")


@pytest.fixture
def sqlite(tmp_path: Path, ring: KeyRing) -> Iterator[SqliteEngine]:
    cast_sqlite(tmp_path / "accounts.db")
    engine = SqliteEngine(tmp_path / "accounts.db")
    yield engine
    engine.close()


@pytest.fixture
def on_postgres(postgres: str, ring: KeyRing) -> Iterator[PostgresEngine]:
    url = cast_postgres(postgres)
    engine = PostgresEngine(url)
    yield engine
    engine.close()
    drop_database(url)


@pytest.fixture
def store(engine: Engine, vault: Vault, new_id: Callable[[], str]) -> Store:
    return Store(engine, vault, new_id)


def advance(clock: Clock, **span: float) -> None:
    clock.offset += timedelta(**span)
