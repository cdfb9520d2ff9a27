"""Databases migrated once in a run under one key ring and copied for each test: a copy costs a tenth of a migration."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from sandbox.local import Local
from sandbox.ports import free_port
from server.parts import load_settings, open_engine
from server.storage.engine import SqliteEngine
from server.storage.keyring import KeyRing
from server.storage.migrate import migrate
from server.storage.postgres import PostgresEngine
from tests.postgres import fresh_database


def cast_ring(path: Path) -> KeyRing:
    """The ring that every copied database was migrated under, at this path."""
    shutil.copy(mould() / "keys.json", path)
    return KeyRing.load(path)


def cast_sqlite(path: Path) -> None:
    """A migrated, empty database file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copy(mould() / "accounts.db", path)


def cast_postgres(url: str) -> str:
    """A migrated, empty database in the cluster; its URL."""
    return fresh_database(url, template=postgres_mould(url))


def furnished(folder: Path) -> Local:
    """The files of a deployment, and no process."""
    local = Local(folder, ports={part: free_port() for part in ("grpc", "http", "sandbox")})
    local.write_files()
    furnish(local.config_file)
    return local


def furnish(config_file: Path) -> None:
    """Key file and schema of a deployment, without the seconds that the commands take to start."""
    settings = load_settings(config_file)
    ring = cast_ring(settings.keys.file)
    if settings.database.path is not None:
        cast_sqlite(settings.database.path)
        return
    engine = open_engine(settings)
    migrate(engine.database, ring)
    engine.close()


@functools.cache
def mould() -> Path:
    """The folder with the ring and the SQLite file that are copied."""
    folder = Path(tempfile.mkdtemp(prefix="accounts-mould-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    KeyRing.create(folder / "keys.json")
    engine = SqliteEngine(folder / "accounts.db")
    migrate(engine.database, KeyRing.load(folder / "keys.json"))
    engine.close()
    return folder


@functools.cache
def postgres_mould(url: str) -> str:
    """The name of the database that is copied."""
    made = fresh_database(url)
    engine = PostgresEngine(made)
    migrate(engine.database, KeyRing.load(mould() / "keys.json"))
    engine.close()
    return made.rpartition("/")[2]
