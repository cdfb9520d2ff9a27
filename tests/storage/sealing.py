"""Builds what the tests of keys begin with: a database with a value in every sealed column, and a rotated ring."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from server.accounts.flow import Phase
from server.accounts.grants import Commit, GrantState, Retry
from server.accounts.model import Secret
from server.storage import key_file
from server.storage.engine import Engine
from server.storage.key_use import enter
from server.storage.keyring import KeyRing
from server.storage.sealed import SEALED
from server.storage.store import Store
from server.storage.vault import Vault
from tests.conftest import advance
from tests.storage.make import begun, claim, connected, refreshed, token_set

HOUR = timedelta(hours=1)


async def fill(store: Store) -> None:
    """A value in every sealed column, two where they differ."""
    await connected(store, profile_id="p1")
    [claimed] = await due(store)
    later = Retry(GrantState.UNKNOWN, await store.now() + 1000 * HOUR, True)
    await store.release(claimed, later, error="unreadable", reply=b"{")
    await connected(store, profile_id="p2")
    [claimed] = await due(store)
    now = await store.now()
    assert await store.commit_refresh(refreshed(claimed, token_set(2, expire_time=now + HOUR), now)) is Commit.STORED
    assert await store.commit_refresh(refreshed(claimed, token_set(3, expire_time=now + HOUR), now)) is Commit.LOST
    revoked = await connected(store, profile_id="p3")
    await store.revoke_account(revoked.id, caller="web", supported=True, ends_user_grant=False)
    answered = await begun(store)
    await store.answer_request(
        answered.id, code=Secret("code-canary"), completion_code_hash=b"h", completion_expire_time=now + HOUR
    )
    exchanging = await begun(store)
    await store.start_exchange(exchanging.id, expected=Phase.BEGUN)
    await store.keep_exchanged(exchanging, token_set(4, expire_time=now + HOUR))


async def due(store: Store) -> Any:
    advance(store.clock, minutes=97)
    return await claim(store)


def rotated(folder: Path, engine: Engine) -> KeyRing:
    """The ring of the fixture, after another key became the active one."""
    path = folder / "keys.json"
    key_id = key_file.add(path)
    enter(engine.database, KeyRing.load(path), key_id)
    key_file.activate(path, key_id)
    return KeyRing.load(path)


def only(ring: KeyRing, key_id: str) -> Vault:
    """A vault that has this key of the ring and no other."""
    return Vault(KeyRing({key_id: ring.key(key_id)}, key_id))


def values(engine: Engine) -> dict[tuple[str, str], tuple[bytes, tuple[str | int, ...]]]:
    """Every sealed value by column and row, with its context."""
    found = {}
    for column in SEALED:
        for row in column.model.select().where(column.field.is_null(False)).execute(engine.database):
            sealed = bytes(getattr(row, column.field.name))
            if sealed:
                found[column.name, getattr(row, column.key.name)] = (sealed, column.context(row))
    return found


def opened(engine: Engine, vault: Vault) -> dict[tuple[str, str], bytes]:
    """Every sealed value in clear. Raises SealBroken."""
    return {where: vault.open(sealed, context) for where, (sealed, context) in values(engine).items()}
