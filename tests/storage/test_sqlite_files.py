"""What lies on disk under SQLite."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from server.accounts.model import Secret
from server.storage.engine import SqliteEngine
from server.storage.store import Store
from server.storage.vault import Vault
from tests.storage.make import begun, connected


async def test_no_token_verifier_or_code_is_in_the_database_file(
    sqlite: SqliteEngine, vault: Vault, new_id: Callable[[], str], tmp_path: Path
) -> None:
    store = Store(sqlite, vault, new_id)
    request = await begun(store)
    until = await store.now() + timedelta(minutes=1)
    await store.answer_request(
        request.id, code=Secret("code-canary"), completion_code_hash=b"h" * 32, completion_expire_time=until
    )
    account = await connected(store)
    await store.revoke_account(account.id, caller="web", supported=True, ends_user_grant=False)
    sqlite.database.execute_sql("PRAGMA wal_checkpoint(PASSIVE)")
    for path in map(tmp_path.joinpath, ("accounts.db", "accounts.db-wal", "accounts.db-shm")):
        assert b"canary" not in path.read_bytes(), path
        assert path.stat().st_mode & 0o077 == 0, path
