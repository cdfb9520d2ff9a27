"""Many accounts at once, as connects would have left them: their grants in the store and at the platform alike."""

from datetime import timedelta

from sandbox.control import Control
from sandbox.ledger import marked
from server.accounts.grants import NewGrant, TokenSet
from server.accounts.model import Identity, Secret
from server.parts import new_id
from server.storage import accounts, grants
from server.storage.store import Store
from server.storage.transaction import Transaction

SCOPES = ("tweet.read", "tweet.write", "users.read", "offline.access")
BATCH = 250


async def seed(sandbox: Control, store: Store, count: int, *, due_in: timedelta, life: timedelta) -> None:
    tokens = [marked("rt") for _ in range(count)]
    await sandbox.seed_grants(tokens, " ".join(SCOPES))
    for start in range(0, count, BATCH):
        batch = tokens[start : start + BATCH]
        await store._write(lambda tx, batch=batch: add_grants(tx, batch, due_in, life))  # type: ignore[misc]


def add_grants(tx: Transaction, refresh_tokens: list[str], due_in: timedelta, life: timedelta) -> None:
    for refresh_token in refresh_tokens:
        grant_id = new_id()
        token_set = TokenSet(Secret("at-of-" + grant_id), Secret(refresh_token), tx.now + life, SCOPES)
        grant = NewGrant(
            id=grant_id,
            token_set=token_set,
            identities=(Identity(grant_id, "ada"),),
            missing_scopes=(),
            due_time=tx.now + due_in,
            identity_due_time=tx.now + timedelta(days=30),
        )
        [account_id] = accounts.attach(tx, grant_id, "twitter", "local", grant)
        grants.add(tx, account_id, grant_id, "twitter", grant)
