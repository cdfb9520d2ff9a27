"""A database with events from before the audit: they keep what they tell, and are linked like any other."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playhouse.migrations import Runner

from server.accounts.audit import Linker
from server.storage.engine import SqliteEngine
from server.storage.keyring import KeyRing
from server.storage.migrate import MIGRATIONS, migrate
from server.storage.postgres import PostgresEngine
from server.storage.store import Store
from server.storage.vault import Vault
from tests.postgres import fresh_database
from tests.storage.rows import sql


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_events_from_before_the_audit_keep_what_they_tell_and_are_linked(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, ring: KeyRing, new_id: Callable[[], str]
) -> None:
    engine = (
        SqliteEngine(tmp_path / "old.db")
        if kind == "sqlite"
        else PostgresEngine(fresh_database(request.getfixturevalue("postgres")))
    )
    try:
        runner = Runner(engine.database, str(MIGRATIONS))
        runner.migrator.vault = Vault(ring)
        runner.up("0002_operating")
        facts = {"handle": "ada", "scopes": ["a", "b"]}
        sql(
            engine,
            "INSERT INTO events (id, number, time, kind, account_id, profile_id, platform, caller, facts)"
            " VALUES ('e1', 1, 1700000000000000, 'connected', 'a1', 'p1', 'twitter', 'web', ?)",
            [json.dumps(facts)],
        )
        assert "0004_audit" in migrate(engine.database, ring)
        store = Store(engine, Vault(ring), new_id)
        [event] = await store.events_of("a1", limit=9)
        assert (event.facts, event.result, event.peer, event.position) == (facts, "done", "", None)
        assert await Linker(store, "me").work_off() == 1
        assert (await store.verify_chain()).broken is None
    finally:
        engine.close()
