"""What all tests share: a key ring, a vault, a real store on a temporary database, and time that is moved."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import uuid_utils

from server.storage.engine import SqliteEngine
from server.storage.keyring import KeyRing
from server.storage.migrate import migrate
from server.storage.store import Clock, Store
from server.storage.vault import Vault


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    KeyRing.create(tmp_path / "keys.json")
    return KeyRing.load(tmp_path / "keys.json")


@pytest.fixture
def vault(ring: KeyRing) -> Vault:
    return Vault(ring)


@pytest.fixture
def clock() -> Clock:
    """The store's time; `clock.offset += timedelta(...)` moves it."""
    return Clock()


@pytest.fixture
def new_id() -> Callable[[], str]:
    return lambda: str(uuid_utils.uuid7())


@pytest.fixture
def engine(tmp_path: Path, ring: KeyRing) -> Iterator[SqliteEngine]:
    engine = SqliteEngine(tmp_path / "accounts.db")
    migrate(engine.database, ring)
    yield engine
    engine.close()


@pytest.fixture
def store(engine: SqliteEngine, vault: Vault, clock: Clock, new_id: Callable[[], str]) -> Store:
    return Store(engine, vault, new_id, clock)


def advance(clock: Clock, **span: float) -> None:
    clock.offset += timedelta(**span)
