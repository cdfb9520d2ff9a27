"""The shared database of a simulated world: the real store's SQLite, with commits that cost nothing and can fail."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from server.accounts.errors import StoreUnavailable
from server.accounts.grants import Refreshed
from server.storage import journal, revocations
from server.storage.engine import SqliteEngine
from server.storage.schema import GrantRow, RequestRow, RevocationRow
from server.storage.token_sets import open_candidate, open_grant, unpack
from server.storage.vault import Vault
from tests.faults.simulation.virtual_time import VirtualClock

T = TypeVar("T")

OBSERVED = """
CREATE TEMP TABLE observed (
    number INTEGER PRIMARY KEY, what TEXT, id TEXT, state_before, state_after, generation_before, generation_after,
    owner TEXT, due INTEGER, grant_before TEXT, grant_after TEXT);

CREATE TEMP TRIGGER grant_added AFTER INSERT ON main.grants BEGIN
    INSERT INTO observed VALUES (NULL, 'grant added', NEW.id, NULL, NEW.state, NULL, NEW.generation, NULL,
        min(coalesce(NEW.due_time, 9e18), coalesce(NEW.identity_due_time, 9e18)), NULL, NULL); END;

CREATE TEMP TRIGGER grant_changed AFTER UPDATE ON main.grants BEGIN
    INSERT INTO observed VALUES (NULL,
        CASE WHEN NEW.state = 'sent' AND NEW.lease_expire_time IS NOT OLD.lease_expire_time
             THEN 'claimed' ELSE 'grant changed' END,
        NEW.id, OLD.state, NEW.state, OLD.generation, NEW.generation, NEW.lease_owner,
        min(coalesce(NEW.due_time, 9e18), coalesce(NEW.identity_due_time, 9e18)), NULL, NULL); END;

CREATE TEMP TRIGGER grant_gone AFTER DELETE ON main.grants BEGIN
    INSERT INTO observed VALUES (NULL, 'grant gone', OLD.id, OLD.state, NULL, OLD.generation, NULL, NULL, NULL,
        NULL, NULL); END;

CREATE TEMP TRIGGER account_added AFTER INSERT ON main.accounts BEGIN
    INSERT INTO observed VALUES (NULL, 'account', NEW.id, NULL, NEW.status, NULL, NEW.status_reason, NULL, NULL,
        NULL, NEW.grant_id); END;

CREATE TEMP TRIGGER account_changed AFTER UPDATE ON main.accounts BEGIN
    INSERT INTO observed VALUES (NULL, 'account', NEW.id, OLD.status, NEW.status, NULL, NEW.status_reason, NULL, NULL,
        OLD.grant_id, NEW.grant_id); END;

CREATE TEMP TRIGGER outbox_added AFTER INSERT ON main.revocations BEGIN
    INSERT INTO observed VALUES (NULL, 'outbox', NEW.id, NULL, NULL, NULL, NULL, NULL, NEW.due_time, NULL, NULL); END;

CREATE TEMP TRIGGER outbox_changed AFTER UPDATE ON main.revocations BEGIN
    INSERT INTO observed VALUES (NULL, 'outbox', NEW.id, NULL, NULL, NULL, NULL, NULL, NEW.due_time, NULL, NULL); END;
"""
"""What changes is written down by the database itself, so that every commit can be judged, and nothing else is read."""


class SimulatedEngine(SqliteEngine):
    """Commits here and now, on the loop: a thread would bring its own order of things."""

    def __init__(self, path: Path, clock: VirtualClock) -> None:
        super().__init__(path)
        self.clock = clock  # type: ignore[assignment]
        self.away_until = 0.0

    def observe(self) -> None:
        self.database.pragma("synchronous", 0)
        self.database.pragma("temp_store", "memory")
        for statement in OBSERVED.strip().split("\n\n"):
            self.database.execute_sql(statement)

    def commit(self, work: Callable[[Any], T]) -> T:
        result: T | BaseException
        [result] = self._commit([work])
        if isinstance(result, BaseException):
            raise result
        return result

    def observations(self) -> list[Any]:
        rows = self.database.execute_sql("SELECT * FROM observed ORDER BY number").fetchall()
        if rows:
            self.database.execute_sql("DELETE FROM observed")
        return [SimpleNamespace(**dict(zip(COLUMNS, row[1:], strict=True))) for row in rows]


COLUMNS = (
    "what",
    "id",
    "state_before",
    "state_after",
    "generation_before",
    "generation_after",
    "owner",
    "due",
    "grant_before",
    "grant_after",
)


class Disk:
    """All that would survive if every process died now, opened: for the judge alone."""

    def __init__(self, engine: SimulatedEngine, vault: Vault, journals: list[Path]) -> None:
        self._database = engine.database
        self._tx = SimpleNamespace(vault=vault)
        self._vault = vault
        self._journals = journals

    def refresh_token_of(self, grant_id: str) -> str:
        row = GrantRow.select().where(GrantRow.id == grant_id).get(self._database)
        token = open_grant(self._tx.vault, row).refresh_token  # type: ignore[arg-type]
        assert token is not None
        return token.reveal()

    def refresh_tokens(self) -> set[str]:
        return self.in_grants() | self.in_outbox() | self.in_requests() | self.in_journals(self._journals)

    def in_grants(self) -> set[str]:
        found = set()
        for row in GrantRow.select().execute(self._database):
            token_sets = [open_candidate(self._tx.vault, row)]  # type: ignore[arg-type]
            token_sets += [open_grant(self._tx.vault, row)] if row.token_set else []  # type: ignore[arg-type]
            found |= {each.refresh_token.reveal() for each in token_sets if each and each.refresh_token}
        return found

    def in_outbox(self) -> set[str]:
        found: set[str] = set()
        for row in RevocationRow.select().execute(self._database):
            found |= {token.reveal() for token in revocations.to_claimed(self._tx, row).tokens}  # type: ignore[arg-type]
        return found

    def in_requests(self) -> set[str]:
        found = set()
        for row in RequestRow.select().where(RequestRow.exchanged.is_null(False)).execute(self._database):
            bound = ("authorization_requests", "exchanged", row.id, row.profile_id, row.platform, 0)
            token = unpack(self._vault.open(bytes(row.exchanged), bound)).refresh_token
            found |= {token.reveal()} if token else set()
        return found

    def in_journals(self, folders: list[Path]) -> set[str]:
        found = set()
        for entry in (entry for folder in folders for entry in folder.iterdir() if entry.name != journal.RESERVE):
            kept = journal.unpack_entry(self._vault.open(entry.read_bytes(), journal.context(entry.stem)))
            token = kept.token_set.refresh_token if isinstance(kept, Refreshed) else None
            found |= {token.reveal()} if token else set()
        return found


def gone() -> StoreUnavailable:
    return StoreUnavailable("the database is away")
