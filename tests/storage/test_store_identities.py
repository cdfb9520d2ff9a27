"""The contract of every store: what the platform says an account is called."""

from datetime import timedelta

from server.accounts.model import Identity
from server.storage.clock import Clock
from server.storage.engine import Engine
from server.storage.store import Store
from tests.storage.make import claim, connected
from tests.storage.rows import events

MINUTE = timedelta(minutes=1)


async def test_a_renamed_handle_is_stored_once(store: Store, clock: Clock, engine: Engine) -> None:
    account = await connected(store, life=None)
    clock.offset += timedelta(days=31)
    [read] = await store.claim_identity_due("twitter", retry=MINUTE, limit=5)
    assert await store.claim_identity_due("twitter", retry=MINUTE, limit=5) == []
    renamed = Identity("1", "countess", "Ada Lovelace", "https://img.test/ada.png")
    due = await store.now() + timedelta(days=30)
    assert await store.update_identity(read.grant_id, renamed, due_time=due)
    assert not await store.update_identity(read.grant_id, renamed, due_time=due)
    after = await store.account(account.id)
    assert after is not None and after.handle == "countess"
    kinds = [kind for _, kind, _ in events(engine, account.id)]
    assert kinds == ["connected", "identity_changed"]


async def test_another_users_identity_changes_nothing(store: Store) -> None:
    account = await connected(store)
    assert not await store.update_identity(account.grant_id, Identity("999", "mallory"), due_time=await store.now())
    after = await store.account(account.id)
    assert after is not None and after.handle == "ada"


async def test_a_refused_access_token_makes_its_grant_due_at_once(store: Store) -> None:
    account = await connected(store)
    await store.refresh_now(account.grant_id, 2)
    assert await claim(store) == []
    await store.refresh_now(account.grant_id, 1)
    assert len(await claim(store)) == 1
