"""Keys, rows D4 to D6 of the threat table: rotation while it runs, wrong keys at the start, and retired keys."""

import asyncio
import contextlib
import json
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sandbox.local import Local
from sandbox.ports import free_port
from server.accounts.errors import StoreUnavailable
from server.app import App
from server.commands import key_life
from server.commands.main import main
from server.commands.operate import operator
from server.parts import load_settings, open_engine
from server.storage import key_file, key_use
from server.storage.keyring import KeyRing, KeyRingError
from server.storage.migrate import migrate
from server.storage.store import Store
from server.storage.transaction import Transaction
from server.storage.vault import SealBroken, Vault, key_id_of
from tests.e2e.conftest import deployment  # noqa: F401 (a fixture)
from tests.e2e.test_processes import connected as connected_in
from tests.e2e.test_processes import until
from tests.moulds import furnished
from tests.postgres import fresh_database
from tests.storage.sealing import fill

CONTEXT = ("grants", "token_set", "grant-1", "profile", "twitter", 7)

# --- D4: rotation while it runs (killed a hundred times: tests/security/test_rotation.py)


async def test_d4_a_key_is_rotated_rewrapped_and_retired_beside_a_running_server(deployment: Local) -> None:  # noqa: F811
    account = await connected_in(deployment)
    keys = deployment.folder / "keys.json"
    old = KeyRing.load(keys).active.id
    deployment.command("keys", "rotate")
    [new] = {each.id for each in KeyRing.load(keys).facts} - {old}
    deadline = asyncio.get_running_loop().time() + 15
    while (refused := refusal(deployment, "activate", new)) and asyncio.get_running_loop().time() < deadline:
        assert "is not known to" in refused
    assert refused == "" and KeyRing.load(keys).active.id == new
    first = await until(deployment, account.id, lambda each: each.last_refresh_time is not None)
    assert "values rewrapped" in deployment.command("keys", "rewrap")
    assert "still used by" in refusal(deployment, "retire", old)
    assert "active one" in refusal(deployment, "retire", new)
    await until(deployment, account.id, lambda each: each.last_refresh_time != first.last_refresh_time)
    deployment.kill("server")
    deployment.command("keys", "rewrap")
    deployment.command("keys", "retire", old)
    lines = deployment.command("keys", "status").splitlines()
    [told] = [line.split() for line in lines if line.startswith(old)]
    assert told[1] == "retired" and told[-1] == "0"
    last = await until_started(deployment, account.id)
    refreshed = await until(deployment, account.id, lambda each: each.last_refresh_time != last.last_refresh_time)
    assert refreshed.status.name == "ACTIVE"


async def until_started(local: Local, account_id: str) -> Any:
    local.start_server()
    return await until(local, account_id, lambda _: True)


def refusal(local: Local, *words: str) -> str:
    """Why a `keys` command was refused; empty if it was not."""
    done = subprocess.run(local.server_command("keys", *words), capture_output=True, text=True, check=False, timeout=30)
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if done.stderr else 0)
    return done.stderr


# --- D5: wrong keys at the start


@pytest.fixture
def local(tmp_path: Path) -> Local:
    """The files of a deployment with a value in its database, and no process."""
    return furnished(tmp_path)


def damage_missing(keys: Path) -> None:
    keys.unlink()


def damage_short(keys: Path) -> None:
    edit(keys, lambda entry: entry.update(key=entry["key"][:20]))


def damage_zero(keys: Path) -> None:
    edit(keys, lambda entry: entry.update(key="A" * 43 + "="))


def damage_world_readable(keys: Path) -> None:
    keys.chmod(0o644)


def damage_other_material(keys: Path) -> None:
    edit(keys, lambda entry: entry.update(key="A" * 42 + "E="))


def damage_other_id(keys: Path) -> None:
    keys.unlink()
    KeyRing.create(keys)


def damage_retired(keys: Path) -> None:
    new = key_file.add(keys)
    key_file.activate(keys, new)
    key_file.retire(keys, next(each.id for each in KeyRing.load(keys).facts if each.id != new))


def edit(keys: Path, change: Callable[[dict[str, Any]], None]) -> None:
    ring = json.loads(keys.read_text())
    change(ring["keys"][0])
    keys.write_text(json.dumps(ring))


def contents(local: Local) -> tuple[bytes, list[str]]:
    """The database file, and what a reader finds in it, who sees the write-ahead log as well."""
    file = local.folder / "accounts.db"
    found = file.read_bytes()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return found, list(connection.iterdump())


DAMAGES = [
    (damage_missing, "keys.json cannot be read"),
    (damage_short, "{id}"),
    (damage_zero, "{id}"),
    (damage_world_readable, "chmod 600"),
    (damage_other_material, "{id}"),
    (damage_other_id, "{id}"),
    (damage_retired, "{id}"),
]


@pytest.mark.parametrize(("damage", "told"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
async def test_d5_a_wrong_key_stops_the_start_before_a_port_opens_and_changes_nothing(
    local: Local, damage: Callable[[Path], None], told: str
) -> None:
    settings = load_settings(local.config_file)
    ring = KeyRing.load(settings.keys.file)
    damage(settings.keys.file)
    material = json.loads(settings.keys.file.read_text())["keys"][0].get("key") if settings.keys.file.exists() else None
    before = contents(local)
    began = asyncio.get_running_loop().time()
    with pytest.raises(KeyRingError) as caught:
        await App(settings, run_jobs=False).start()
    assert asyncio.get_running_loop().time() - began < 5
    assert told.format(id=ring.active.id) in str(caught.value)
    assert material is None or material not in str(caught.value)
    assert contents(local) == before
    for part in ("grpc", "http"):
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", local.ports[part]), timeout=1).close()


def keys(local: Local, *words: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(local.config_file), "keys", *words])


def test_d5_a_new_key_is_never_made_beside_a_sqlite_file(local: Local) -> None:
    (local.folder / "keys.json").unlink()
    refused = keys(local, "new")
    assert refused.exit_code == 2 and "would not open what it holds" in refused.output
    assert not (local.folder / "keys.json").exists()


def test_d5_a_new_key_is_never_made_beside_a_postgresql_database_that_holds_values(local: Local, postgres: str) -> None:
    url = fresh_database(postgres)
    text = local.config_file.read_text().replace("sqlite:///accounts.db", url)
    local.config_file.write_text(text.replace("[refresh]", '[refresh]\njournal = "journal"'))
    (local.folder / "keys.json").unlink()
    assert keys(local, "new").exit_code == 0
    engine = open_engine(load_settings(local.config_file))
    migrate(engine.database, KeyRing.load(local.folder / "keys.json"))
    engine.close()
    (local.folder / "keys.json").unlink()
    refused = keys(local, "new")
    assert refused.exit_code == 2 and "holds values that a new key would not open" in refused.output
    assert not (local.folder / "keys.json").exists()


def test_d5_a_new_key_is_never_made_beside_a_database_that_does_not_answer(local: Local) -> None:
    url = f"postgresql://accounts@127.0.0.1:{free_port()}/accounts"
    text = local.config_file.read_text().replace("sqlite:///accounts.db", url)
    local.config_file.write_text(text.replace("[refresh]", '[refresh]\njournal = "journal"'))
    (local.folder / "keys.json").unlink()
    refused = keys(local, "new")
    assert refused.exit_code == 2 and "Connection refused" in refused.output
    assert not (local.folder / "keys.json").exists()


async def test_d4_a_key_that_still_wraps_anything_is_not_retired(local: Local) -> None:
    settings = load_settings(local.config_file)
    ring = KeyRing.load(settings.keys.file)
    engine = open_engine(settings)
    await fill(Store(engine, Vault(ring), iter(map(str, range(10**6))).__next__))
    engine.close()
    key_id = await asyncio.to_thread(rotate, local)
    before = settings.keys.file.read_bytes()
    refused = await asyncio.to_thread(keys, local, "retire", ring.active.id)
    assert refused.exit_code == 2, refused.output
    for column in ("grants.token_set", "grants.candidate", "authorization_requests.code", "secrets.sealed"):
        assert f"in {column}" in refused.output
    assert settings.keys.file.read_bytes() == before
    assert (await asyncio.to_thread(keys, local, "rewrap", "--rate", "1000")).exit_code == 0
    retired = await asyncio.to_thread(keys, local, "retire", ring.active.id)
    assert retired.exit_code == 0, retired.output
    assert list(KeyRing.load(settings.keys.file)) == [key_id]
    assert (await asyncio.to_thread(keys, local, "retire", ring.active.id)).exit_code == 0


def rotate(local: Local) -> str:
    known = {each.id for each in KeyRing.load(local.folder / "keys.json").facts}
    assert keys(local, "rotate").exit_code == 0
    [key_id] = {each.id for each in KeyRing.load(local.folder / "keys.json").facts} - known
    assert keys(local, "activate", key_id).exit_code == 0
    return key_id


async def test_d6_a_value_of_a_retired_key_opens_with_no_ring_of_after(local: Local) -> None:
    settings = load_settings(local.config_file)
    sealed = Vault(KeyRing.load(settings.keys.file)).seal(b"of an old backup", CONTEXT)
    old = key_id_of(sealed)
    await asyncio.to_thread(rotate, local)
    assert Vault(KeyRing.load(settings.keys.file)).open(sealed, CONTEXT)
    assert (await asyncio.to_thread(keys, local, "rewrap")).exit_code == 0
    assert (await asyncio.to_thread(keys, local, "retire", old)).exit_code == 0
    with pytest.raises(SealBroken):
        Vault(KeyRing.load(settings.keys.file)).open(sealed, CONTEXT)


async def test_d5_a_migration_with_a_key_file_from_before_a_retirement_changes_nothing(local: Local) -> None:
    file = local.folder / "keys.json"
    old = KeyRing.load(file).active.id
    assert (await asyncio.to_thread(keys, local, "rotate")).exit_code == 0
    stale = file.read_bytes()
    [new] = set(KeyRing.load(file)) - {old}
    for words in (("activate", new), ("rewrap",), ("retire", old)):
        assert (await asyncio.to_thread(keys, local, *words)).exit_code == 0
    present = file.read_bytes()
    file.write_bytes(stale)
    refused = CliRunner().invoke(main, ["--config", str(local.config_file), "migrate"])
    assert refused.exit_code == 2 and f"key '{old}' is retired; this key file is an old one" in refused.output
    file.write_bytes(present)
    app = App(load_settings(local.config_file), run_jobs=False)
    await app.start()
    await app.stop()


# --- forgotten by mistake


async def test_d4_a_process_that_was_forgotten_and_lives_says_again_which_keys_it_uses(local: Local) -> None:
    app = App(load_settings(local.config_file), run_jobs=False)
    await app.start()
    try:
        [before] = await app.engine.read(key_use.users)
        assert await app.engine.write(lambda database: key_use.forget(database, before.process))
        await app.keys.follow()
        [after] = await app.engine.read(key_use.users)
        assert (after.process, after.uses) == (before.process, before.uses)
    finally:
        await app.stop()


async def test_d4_a_key_that_a_forgotten_process_still_seals_with_is_not_retired(local: Local) -> None:
    settings = load_settings(local.config_file)
    old = KeyRing.load(settings.keys.file).active.id
    app = App(settings, run_jobs=False)
    await app.start()
    try:
        new = await key_life.rotate(settings)
        await app.keys.follow()
        await key_life.activate(settings, new)
        async with key_life.rewrapping(settings, 1000) as (rewrapper, _):
            await rewrapper.run()
        [process] = await app.engine.read(key_use.users)
        await key_life.forget(settings, process.process)

        async def meanwhile(seconds: float) -> None:
            assert seconds == key_life.HEARD_SECONDS
            await app.keys.follow()

        with pytest.raises(KeyRingError, match="is still used by"):
            await key_life.retire(settings, old, meanwhile)
        assert old in KeyRing.load(settings.keys.file)
        assert not await app.engine.read(lambda database: key_use.is_retired(database, old))
    finally:
        await app.stop()


# --- the audit of it


def audited(local: Local) -> list[tuple[str, str, dict[str, Any]]]:
    engine = open_engine(load_settings(local.config_file), alone=False)
    try:
        found = engine.database.execute_sql("SELECT kind, caller, facts FROM events ORDER BY id").fetchall()
    finally:
        engine.close()
    return [(kind, caller, json.loads(facts)) for kind, caller, facts in found]


def test_whatever_an_operator_does_to_the_keys_is_in_the_audit(local: Local) -> None:
    old = KeyRing.load(local.folder / "keys.json").active.id
    new = rotate(local)
    assert keys(local, "rewrap").exit_code == 0
    assert keys(local, "forget", "nobody").exit_code == 2
    assert keys(local, "retire", old).exit_code == 0
    by = f"operator {operator()}"
    [*_, rewrapped, retired] = told = audited(local)
    assert told == [
        ("key_added", by, {"key": new}),
        ("key_activated", by, {"key": new}),
        rewrapped,
        retired,
    ]
    assert rewrapped[:2] == ("rewrap_begun", by) and rewrapped[2]["key"] == new and rewrapped[2]["count"] > 0
    assert retired == ("key_retired", by, {"key": old})


def test_what_cannot_be_audited_is_not_done_to_the_keys(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    old = KeyRing.load(local.folder / "keys.json").active.id
    new = rotate(local)
    assert keys(local, "rewrap").exit_code == 0
    key_file_before, before = (local.folder / "keys.json").read_bytes(), audited(local)

    def refuse(_: Transaction) -> bool:
        raise StoreUnavailable("no room for events")

    monkeypatch.setattr(Transaction, "write_events", refuse)
    for words in (("rotate",), ("activate", new), ("rewrap",), ("retire", old)):
        refused = keys(local, *words)
        assert refused.exit_code == 2 and "no room for events" in refused.output, words
        assert (local.folder / "keys.json").read_bytes() == key_file_before
    monkeypatch.undo()
    assert audited(local) == before
    assert keys(local, "retire", old).exit_code == 0


async def test_that_a_process_is_forgotten_is_in_the_audit(local: Local) -> None:
    app = App(load_settings(local.config_file), run_jobs=False)
    await app.start()
    try:
        [process] = await app.engine.read(key_use.users)
        await key_life.forget(app.settings, process.process)
    finally:
        await app.stop()
    assert ("process_forgotten", f"operator {operator()}", {"process": process.process}) in audited(local)
