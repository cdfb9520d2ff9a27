"""Ciphertext, rows D1 to D3 of the threat table: what is moved, damaged or sealed a million times."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from server.accounts.model import Status
from server.storage import key_use
from server.storage.engine import Engine
from server.storage.schema import GrantRow
from server.storage.store import Store
from server.storage.token_sets import grant_context
from server.storage.vault import NONCE, SealBroken, Vault, associated, head_of, split
from tests.e2e.conftest import whole_service
from tests.security.acting import acting
from tests.storage.make import claim, connected
from tests.storage.rows import sql
from tests.storage.sealing import due

CONTEXT = ("grants", "token_set", "grant-1", "profile", "twitter", 7)

# --- D1: ciphertext moved


async def swap_rows(engine: Engine, a: str, b: str) -> None:
    of = dict(sql(engine, "SELECT id, token_set FROM grants").fetchall())
    for here, there in ((a, b), (b, a)):
        sql(engine, "UPDATE grants SET token_set = ? WHERE id = ?", [bytes(of[there]), here])


async def other_column(engine: Engine, a: str, b: str) -> None:
    sql(engine, "UPDATE grants SET token_set = candidate WHERE id = ?", [a])


async def other_table(engine: Engine, a: str, b: str) -> None:
    [[tokens]] = sql(engine, "SELECT code_verifier FROM authorization_requests LIMIT 1").fetchall()
    sql(engine, "UPDATE grants SET token_set = ? WHERE id = ?", [bytes(tokens), a])


async def older_generation(engine: Engine, a: str, b: str) -> None:
    sql(engine, "UPDATE grants SET generation = generation + 1 WHERE id = ?", [a])


async def other_profile(engine: Engine, a: str, b: str) -> None:
    sql(engine, "UPDATE grants SET profile_id = 'mallory' WHERE id = ?", [a])


Move = Callable[[Engine, str, str], Any]
MOVES: list[Move] = [swap_rows, other_column, other_table, older_generation, other_profile]


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
async def test_d1_a_token_set_that_was_moved_is_never_claimed_and_holds_up_no_other(
    engine: Engine, vault: Vault, store: Store, move: Move, caplog: pytest.LogCaptureFixture
) -> None:
    grants = []
    for number in range(3):
        await connected(store, profile_id=f"p{number}")
        grants += [row[0] for row in sql(engine, "SELECT id FROM grants").fetchall() if row[0] not in grants]
    for row in GrantRow.select().execute(engine.database):
        bound = grant_context("candidate", row.id, row.profile_id, row.platform, row.generation)
        sql(engine, "UPDATE grants SET candidate = ? WHERE id = ?", [vault.seal(b"{}", bound), row.id])
    await move(engine, grants[0], grants[1])
    broken = grants[:2] if move is swap_rows else grants[:1]
    claimed = await due(store)
    assert {each.id for each in claimed} == set(grants) - set(broken)
    assert vault.broken == len(broken)
    assert {getattr(record, "grant_id", None) for record in caplog.records} == set(broken)
    assert await claim(store) == []


async def test_d1_a_token_set_that_was_moved_sends_nothing_and_is_counted(tmp_path: Path) -> None:
    async with whole_service(tmp_path) as whole:
        ada, grace, other = [await whole.connect(name) for name in ("ada", "grace", "katherine")]
        [a, b] = sql(
            whole.app.engine, "SELECT grant_id FROM accounts WHERE id IN (?, ?)", [ada.id, grace.id]
        ).fetchall()
        await swap_rows(whole.app.engine, a[0], b[0])
        await whole.refresh_due()
        sent = [each["grant_type"] for each in await whole.sandbox.requests("token")]
        assert sent.count("refresh_token") == 1
        assert whole.app.metrics.registry.get_sample_value("accounts_broken_seals") == 2
        for account in (ada, grace, other):
            stored = await whole.app.store.account(account.id)
            assert stored is not None and stored.status is Status.ACTIVE


async def test_d1_a_call_whose_token_set_was_moved_is_a_fault_of_ours_and_sends_nothing(tmp_path: Path) -> None:
    async with acting(tmp_path) as service:
        engine = service.whole.app.engine
        grace, other = [await service.whole.connect(name) for name in ("grace", "katherine")]
        moved = [service.account.id, grace.id]
        [a, b] = sql(engine, "SELECT grant_id FROM accounts WHERE id IN (?, ?)", moved).fetchall()
        await swap_rows(engine, a[0], b[0])
        for number, account_id in enumerate(moved, start=1):
            refusal = await service.refusal(account_id=account_id)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
            assert service.whole.app.metrics.registry.get_sample_value("accounts_broken_seals") == number
        assert service.peer.connections == 0
        assert (await service.call(account_id=other.id)).status_code == 200, "others go on"


# --- D2: ciphertext damaged (hypothesis and every bit and length: tests/storage/test_vault.py)


@pytest.mark.parametrize("blobs", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_d2_of_many_damaged_values_none_opens_and_nothing_else_is_raised(vault: Vault, blobs: int) -> None:
    """Seeded, not hypothesis: so many, and damage that keeps most of a sound value."""
    chance = random.Random(20261124)
    sound = vault.seal(b"a token that is long enough", CONTEXT)
    for _ in range(blobs):
        blob = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(blob))
            what = chance.randrange(4)
            if what == 0:
                blob[place] ^= chance.randint(1, 255)
            elif what == 1:
                del blob[place : place + chance.randint(1, 20)]
            elif what == 2:
                blob[place:place] = chance.randbytes(chance.randint(1, 20))
            else:
                blob[place:] = chance.randbytes(len(blob) - place)
            if not blob:
                break
        if bytes(blob) == sound:
            continue
        with pytest.raises(SealBroken):
            vault.open(bytes(blob), CONTEXT)


# --- D3: nonces and data keys


@pytest.mark.parametrize("seals", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_d3_no_nonce_and_no_data_key_is_used_twice(vault: Vault, seals: int) -> None:
    """By their first eight bytes: among a million random ones two agree once in forty million runs."""
    key = vault.ring.active
    cipher, bound = AESGCM(key.material), associated(CONTEXT) + head_of(key.id)
    seen: tuple[set[bytes], ...] = (set(), set(), set(), set())
    for _ in range(seals):
        _, wrapped, inner = split(vault.seal(b"", CONTEXT))
        data_key = cipher.decrypt(wrapped[:NONCE], wrapped[NONCE:], bound)
        for found, value in zip(seen, (wrapped, wrapped[NONCE:], inner, data_key), strict=True):
            found.add(value[:8])
    assert [len(found) for found in seen] == [seals] * 4
    assert vault.take_wraps() == {key.id: seals}


async def test_d3_the_wear_of_the_active_key_is_counted_in_the_database(tmp_path: Path) -> None:
    async with whole_service(tmp_path) as whole:
        await whole.connect("ada")
        await whole.app.keys.follow()
        active = whole.app.keys._vault.ring.active.id
        counted = key_use.wraps_of(whole.app.engine.database, [active])[active]
        assert counted >= 3  # verifier, code, the new grant
        await whole.refresh_due()
        await whole.app.keys.follow()
        assert key_use.wraps_of(whole.app.engine.database, [active])[active] == counted + 1
        assert whole.app.metrics.registry.get_sample_value("accounts_key_wraps") == counted + 1
