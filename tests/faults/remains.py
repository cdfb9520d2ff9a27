"""What a server has on its disk: rows and journal entries, opened with its key ring; and time moved in its rows."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from playhouse.cysqlite_ext import CySqliteDatabase
from playhouse.db_url import connect

from server.accounts.grants import GrantState, Refreshed, TokenSet
from server.storage import journal
from server.storage.keyring import KeyRing
from server.storage.schema import AccountRow, GrantRow
from server.storage.token_sets import grant_context, unpack
from server.storage.vault import SealBroken, Vault

LEASE_SECONDS = 60


@dataclass(frozen=True)
class StoredGrant:
    """The grant of one account as the database has it."""

    id: str
    state: GrantState
    generation: int
    due_us: int | None
    has_candidate: bool
    token_set: TokenSet

    @property
    def settled(self) -> bool:
        """Whether nothing is under way any more and nothing will be for a while."""
        waits = self.state is GrantState.READY and self.due_us is not None and self.due_us > now_us() + 10_000_000
        return waits or self.state is GrantState.DEAD


class Database(Protocol):
    """The database of a deployment, as the test sees it beside the server."""

    def opened(self) -> contextlib.AbstractContextManager[Any]:
        """While the server lives."""

    def left_behind(self) -> contextlib.AbstractContextManager[Any]:
        """After its death, without changing what the next server will find."""


class SqliteFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        # The same SQLite library as the server's: older ones can lose commits beside another writer.
        database = CySqliteDatabase(str(self._path), timeout=10)
        database.connect()
        try:
            yield database
        finally:
            database.close()

    @contextlib.contextmanager
    def left_behind(self) -> Iterator[Any]:
        """A copy: whoever opens the file itself recovers it, and that is for the restarted server to do."""
        with tempfile.TemporaryDirectory() as scratch:
            for name in (self._path.name, self._path.name + "-wal"):
                if (source := self._path.with_name(name)).exists():
                    shutil.copy(source, Path(scratch, name))
            with SqliteFile(Path(scratch, self._path.name)).opened() as database:
                yield database


class PostgresServer:
    """Spoken to directly, past any proxy."""

    def __init__(self, url: str) -> None:
        self._url = url

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        database = connect(self._url, prefer_psycopg3=True)
        try:
            yield database
        finally:
            database.close()

    @contextlib.contextmanager
    def left_behind(self) -> Iterator[Any]:
        """Once PostgreSQL has noticed the death and has ended what was open."""
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        deadline = time.monotonic() + 20
        with self.opened() as database:
            while database.execute_sql(others).fetchone()[0]:
                assert time.monotonic() < deadline, "PostgreSQL still serves a dead server"
                time.sleep(0.01)
            yield database


class Remains:
    """Reads what is stored, with the keys of the deployment."""

    def __init__(self, database: Database, key_file: Path, journal_folder: Path) -> None:
        self._database = database
        self._vault = Vault(KeyRing.load(key_file))
        self.journal_folder = journal_folder

    def grants(self, *, server_is_dead: bool = False) -> dict[str, StoredGrant]:
        """The present grant of each account, by the account's id."""
        view = self._database.left_behind if server_is_dead else self._database.opened
        with view() as database:
            rows = GrantRow.select(GrantRow, AccountRow.id.alias("of")).join(
                AccountRow, on=(AccountRow.grant_id == GrantRow.id), attr="account"
            )
            return {row.account.of: self._to_grant(row) for row in rows.execute(database)}

    def journal(self) -> dict[str, TokenSet]:
        """The token sets that are whole, finished or not, by the id of their grant."""
        found = {}
        for path in sorted(self.journal_folder.iterdir()):
            name = path.name.removesuffix(journal.UNFINISHED)
            with contextlib.suppress(SealBroken, FileNotFoundError):
                entry = journal.unpack_entry(self._vault.open(path.read_bytes(), journal.context(name)))
                if isinstance(entry, Refreshed):
                    found[entry.grant_id] = entry.token_set
        return found

    def make_due(self, account_ids: Collection[str]) -> None:
        """Time passes for these accounts alone."""
        with self._database.opened() as database:
            changed = (
                GrantRow.update(due_time=now_us())
                .where(GrantRow.account_id.in_(list(account_ids)), GrantRow.state == GrantState.READY)
                .execute(database)
            )
        assert changed == len(account_ids), f"{changed} of {len(account_ids)} grants could be made due"

    def let_leases_end(self) -> None:
        """Time passes until every lease is over."""
        with self._database.opened() as database:
            ago = LEASE_SECONDS * 1_000_000
            GrantRow.update(due_time=GrantRow.due_time - ago, lease_expire_time=GrantRow.lease_expire_time - ago).where(
                GrantRow.state == GrantState.SENT
            ).execute(database)

    def _to_grant(self, row: Any) -> StoredGrant:
        bound = grant_context("token_set", row.id, row.profile_id, row.platform, row.generation)
        token_set = unpack(self._vault.open(bytes(row.token_set), bound))
        return StoredGrant(
            row.id, GrantState(row.state), row.generation, row.due_time, row.candidate is not None, token_set
        )


def now_us() -> int:
    return time.time_ns() // 1000
