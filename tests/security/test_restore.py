"""Restore, row D6: the scripts of deploy/ back up real servers and restore them elsewhere, on both databases."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from playhouse.migrations import Runner
from synposter_accounts import AccountsError, AccountStatus, AsyncAccounts

from sandbox.demo import Demo
from sandbox.local import Local
from server.parts import load_settings
from server.storage.backup import copy_sqlite
from server.storage.engine import DatabaseUnusable, SqliteEngine, hold
from server.storage.keyring import KeyRing
from server.storage.migrate import MIGRATIONS
from server.storage.vault import Vault
from tests.faults.processes import LONG, Fleet, fleet, until
from tests.postgres import fresh_database

DEPLOY = Path(__file__).parents[2] / "deploy"
GRANTS = 20
ROTATED = 12
"""How many of them are refreshed after the backup."""


@pytest.fixture(params=["sqlite", "postgres"])
async def running(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    """One server that serves, with accounts of which none is due."""
    url = fresh_database(request.getfixturevalue("postgres")) if request.param == "postgres" else None
    async with fleet(tmp_path, database_url=url) as running:
        await running.seed(GRANTS, due_in=LONG, life=2 * LONG)
        running.start()
        yield running


def script(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [DEPLOY / name, *map(str, words)]
    env = {**os.environ, "PYTHON": sys.executable, "KEEP": "2"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)


def command(local: Local, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(local.server_command(*words), capture_output=True, text=True, check=False, timeout=60)


async def in_thread(work: object, *words: object) -> subprocess.CompletedProcess[str]:
    done = await asyncio.to_thread(work, *words)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done  # type: ignore[no-any-return]


async def backed_up(running: Fleet, folder: Path) -> Path:
    told = await in_thread(script, "backup", running.servers[0].config_file, folder)
    return Path(told.stdout.splitlines()[-1].removeprefix("wrote ").partition(",")[0])


def elsewhere(running: Fleet, folder: Path, request: pytest.FixtureRequest) -> Fleet:
    """Another machine: the configuration with no database yet, and what is kept apart from it."""
    old = running.servers[0]
    local = Local(folder)
    folder.mkdir()
    text = old.config_file.read_text()
    if "postgresql" in text:
        text = text.replace(
            load_settings(old.config_file).database.url, fresh_database(request.getfixturevalue("postgres"))
        )
    local.config_file.write_text(text)
    for name in ("keys.json", "client-secret", "api-key"):
        shutil.copy2(old.folder / name, folder / name)
    log = folder / "server.log"
    local.log = log.open("ab")
    return Fleet([local], running.sandbox, [log])


async def refresh_all(running: Fleet) -> list[str]:
    """Asks for a refresh of every account, whatever is left of its access token; the reasons of refusals."""
    local = running.servers[0]
    refused = []
    async with AsyncAccounts(local.target, local.api_key) as accounts:
        for [account_id] in running.sql("SELECT id FROM accounts"):
            try:
                await accounts.refresh(account_id)
            except AccountsError as error:
                refused.append(error.reason)
    return refused


async def test_d6_a_backup_of_a_running_server_is_restored_elsewhere_and_nothing_is_replayed_by_itself(
    running: Fleet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    old = running.servers[0]
    async with AsyncAccounts(old.target, old.api_key) as accounts:
        ada = await Demo(accounts, running.sandbox, f"{old.public_url}/your-app").connect("ada")
    backup = await backed_up(running, tmp_path / "backups")
    assert backup.stat().st_mode & 0o777 == 0o600
    assert b"canary" not in backup.read_bytes()
    ids = [row[0] for row in running.sql(f"SELECT id FROM grants WHERE account_id != '{ada.id}' ORDER BY id")]
    rotated = [*ids[:ROTATED], ada.id]
    named = ", ".join(f"'{each}'" for each in rotated)
    running.sql(f"UPDATE grants SET due_time = 1 WHERE id IN ({named}) OR account_id IN ({named})")
    await until(lambda: running.refreshed() == len(rotated))
    old.kill("server")
    sent = await running.sent()

    place = elsewhere(running, tmp_path / "elsewhere", request)
    new = place.servers[0]
    told = (await in_thread(script, "restore", new.config_file, backup)).stdout
    assert f"{GRANTS + 1} grants suspect" in told and "the chain is whole" in told
    assert place.states() == {"suspect": GRANTS + 1}
    new.start_server()
    try:
        assert await refresh_all(place) == [], "their access tokens are served"
        # Time passes: every access token ends, and whatever was due has long been.
        place.sql("UPDATE grants SET access_token_expire_time = 1, identity_due_time = 1")
        await asyncio.sleep(3)
        assert set(await refresh_all(place)) == {"PLATFORM_UNAVAILABLE"}
        assert (await running.sent(), await running.replays()) == (sent, 0)
        assert f"{GRANTS + 1}" in (await in_thread(command, new, "grants", "suspect")).stdout.splitlines()[-1]

        # Operators decide: the tokens that the platform has replaced are given up, the others tried.
        where = place.sql(f"SELECT id FROM grants WHERE id IN ({named}) OR account_id IN ({named})")
        chosen = [word for [grant_id] in where for word in ("--grant", grant_id)]
        await in_thread(command, new, "grants", "suspect", "give-up", "--yes", *chosen)
        await in_thread(command, new, "grants", "suspect", "try", "--all", "--yes")
        await until(lambda: place.states() == {"dead": len(rotated), "ready": GRANTS + 1 - len(rotated)})
        assert (await running.sent(), await running.replays()) == (sent + GRANTS - ROTATED, 0)
        assert {status.name: count for status, count in place.statuses().items()} == {
            "EXPIRED": len(rotated),
            "ACTIVE": GRANTS - ROTATED,
        }
        async with AsyncAccounts(new.target, new.api_key) as accounts:
            again = await Demo(accounts, running.sandbox, f"{old.public_url}/your-app").connect("ada")
            assert (again.id, again.status) == (ada.id, AccountStatus.ACTIVE)
        verified = (await in_thread(command, new, "audit", "verify")).stdout
        assert "the chain is whole" in verified
    finally:
        new.kill("server")


async def test_d6_a_backup_is_not_served_before_it_is_put_to_use(
    running: Fleet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    local = running.servers[0]
    backup = await backed_up(running, tmp_path / "backups")
    local.kill("server")
    settings = load_settings(local.config_file)
    if settings.database.path is not None:
        for left in settings.database.path.parent.glob("accounts.db-*"):
            left.unlink()
        shutil.copyfile(backup, settings.database.path)
    else:
        url = fresh_database(request.getfixturevalue("postgres"))
        subprocess.run(["psql", "-q", "-d", url, "-f", backup], check=True, stdout=subprocess.DEVNULL)
        text = local.config_file.read_text().replace(settings.database.url, url)
        local.config_file.write_text(text)
    refused = await asyncio.to_thread(command, local)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "is a backup of" in refused.stderr and "restored" in refused.stderr
    await in_thread(command, local, "restored")
    local.start_server()
    assert running.states() == {"suspect": GRANTS}


@pytest.mark.parametrize("running", ["sqlite"], indirect=True)
async def test_d6_a_database_that_has_gone_back_is_not_served(running: Fleet) -> None:
    """A snapshot, a file copied back, a standby that was behind: the machine knows better than the database."""
    local = running.servers[0]
    local.kill("server")
    local.start_server()  # a crash is none of these
    local.kill("server")
    mistaken = await asyncio.to_thread(command, local, "restored")
    assert mistaken.returncode == 2 and "nothing shows" in mistaken.stderr
    running.sql("UPDATE counters SET value = value - 60000000 WHERE name = 'served'")
    refused = await asyncio.to_thread(command, local)
    assert refused.returncode == 2 and "has gone back" in refused.stderr and "Traceback" not in refused.stderr
    assert running.states() == {"ready": GRANTS}
    await in_thread(command, local, "restored")
    assert running.states() == {"suspect": GRANTS}
    local.start_server()


@pytest.mark.parametrize("running", ["sqlite"], indirect=True)
async def test_a_database_that_was_only_moved_goes_on_as_it_was(
    running: Fleet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    running.servers[0].kill("server")
    backup = await backed_up(running, tmp_path / "backups")
    place = elsewhere(running, tmp_path / "elsewhere", request)
    await in_thread(script, "restore", place.servers[0].config_file, backup, "--moved")
    place.make_due()
    place.servers[0].start_server()
    try:
        await until(lambda: place.refreshed() == GRANTS)
    finally:
        place.servers[0].kill("server")
    assert await running.replays() == 0


@pytest.mark.parametrize("running", ["sqlite"], indirect=True)
async def test_the_newest_backups_are_kept_and_none_is_overwritten(running: Fleet, tmp_path: Path) -> None:
    local, folder = running.servers[0], tmp_path / "backups"
    folder.mkdir()
    killed = folder / "accounts-20260101T000000Z.backup.coming"
    killed.touch()
    os.utime(killed, (0, 0))
    for day in range(1, 4):
        (folder / f"accounts-2026010{day}T000000Z.backup").touch()
    newest = await backed_up(running, folder)
    assert sorted(folder.iterdir()) == [folder / "accounts-20260103T000000Z.backup", newest]
    again = await asyncio.to_thread(command, local, "backup", str(newest))
    assert again.returncode == 2 and "it is not overwritten" in again.stderr


async def test_a_restore_is_refused_beside_a_server_and_over_data_and_says_so_plainly(
    running: Fleet, tmp_path: Path
) -> None:
    local = running.servers[0]
    backup = await backed_up(running, tmp_path / "backups")
    refused = await asyncio.to_thread(script, "restore", local.config_file, backup)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "another process holds" in refused.stderr or "is not empty" in refused.stderr
    assert running.states() == {"ready": GRANTS}


async def test_a_restore_moves_the_present_file_aside_with_its_log(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        await running.seed(GRANTS, due_in=LONG)
        running.start()
        backup = await backed_up(running, tmp_path / "backups")
        running.servers[0].kill("server")
        before = running.database.read_bytes()
        await in_thread(script, "restore", running.servers[0].config_file, backup)
        [aside] = running.database.parent.glob("accounts.db.2*Z")
        assert aside.read_bytes() == before
        assert aside.with_name(aside.name + "-wal").exists()
        garbage = tmp_path / "garbage"
        garbage.write_text("no backup")
        refused = await asyncio.to_thread(command, running.servers[0], "restore", str(garbage))
        assert refused.returncode == 2 and "is no backup" in refused.stderr
        os.close(hold(running.database))


async def test_a_damaged_file_is_told_of_in_a_line_and_not_served(tmp_path: Path) -> None:
    """Damaged as people do it: a backup is copied over a database whose log is left behind."""
    async with fleet(tmp_path) as running:
        await running.seed(200, due_in=LONG)
        running.start()
        local, path = running.servers[0], running.database
        backup = await backed_up(running, tmp_path / "backups")
        local.kill("server")
        shutil.copyfile(backup, path)
        refused = await asyncio.to_thread(command, local)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert refused.stderr.startswith("error: ")
    path.with_name("accounts.db-wal").unlink(missing_ok=True)
    path.write_bytes(b"x" * 8192)
    with pytest.raises(DatabaseUnusable, match="is damaged"):
        SqliteEngine(path)
    os.close(hold(path))


async def test_a_backup_of_an_older_version_is_migrated(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        local, path = running.servers[0], running.database
        older = tmp_path / "older"
        older.mkdir()
        for migration in sorted(MIGRATIONS.glob("0*.py"))[:-1]:
            shutil.copy2(migration, older)
        for left in path.parent.glob("accounts.db*"):
            left.unlink()
        engine = SqliteEngine(path)
        runner = Runner(engine.database, str(older))
        runner.migrator.vault = Vault(KeyRing.load(local.folder / "keys.json"))
        runner.up()
        engine.close()
        copy_sqlite(path, tmp_path / "backup")
        told = (await in_thread(command, local, "restore", str(tmp_path / "backup"))).stdout
        assert "applied 00" in told and "nothing is suspect" in told
        local.start_server()


def by_vacuum(database: Path, copy: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))


def by_cp(database: Path, copy: Path) -> None:
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{database}{suffix}", f"{copy}{suffix}")


@pytest.mark.parametrize("copied", [by_vacuum, by_cp])
async def test_d6_restore_takes_a_copy_that_does_not_say_so_for_a_backup_as_well(
    tmp_path: Path, copied: Callable[[Path, Path], None]
) -> None:
    async with fleet(tmp_path) as running:
        await running.seed(GRANTS, due_in=LONG)
        running.start()
        running.servers[0].kill("server")
        copied(running.database, tmp_path / "copy")
        await in_thread(script, "restore", running.servers[0].config_file, tmp_path / "copy")
        assert running.states() == {"suspect": GRANTS}


async def test_a_restore_that_fails_has_changed_nothing_and_says_so(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        await running.seed(200, due_in=LONG)
        running.start()
        local, keys = running.servers[0], running.servers[0].folder / "keys.json"
        backup = await backed_up(running, tmp_path / "backups")
        local.kill("server")
        cut = tmp_path / "cut"
        cut.write_bytes(backup.read_bytes()[: backup.stat().st_size // 2])
        mine = keys.read_bytes()
        KeyRing.create(tmp_path / "other.json")
        for file, ring in ((cut, mine), (backup, (tmp_path / "other.json").read_bytes())):
            keys.write_bytes(ring)
            before = running.database.read_bytes()
            refused = await asyncio.to_thread(command, local, "restore", str(file))
            assert refused.returncode == 2 and "Traceback" not in refused.stderr
            assert "nothing was changed" in refused.stderr
            assert running.database.read_bytes() == before
            assert not list(running.database.parent.glob("accounts.db.restoring*"))
        keys.write_bytes(mine)
        local.start_server()


async def test_d6_nothing_is_tried_or_given_up_unless_it_is_said_which_and_confirmed(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        await running.seed(GRANTS, due_in=LONG)
        await in_thread(command, running.servers[0], "restored", "--unmarked")
        for words, told in (((), "say which"), (("--all", "--platform", "myspace"), "myspace is not registered")):
            refused = await asyncio.to_thread(command, running.servers[0], "grants", "suspect", "try", *words)
            assert refused.returncode == 2 and told in refused.stderr and "Traceback" not in refused.stderr
        for decision in ("try", "give-up"):
            unconfirmed = await asyncio.to_thread(command, running.servers[0], "grants", "suspect", decision, "--all")
            assert unconfirmed.returncode == 1 and f"{GRANTS} grants" in unconfirmed.stdout
        assert running.states() == {"suspect": GRANTS}
        await in_thread(command, running.servers[0], "grants", "suspect", "try", "--living", "--yes")
        assert running.states() == {"unknown": GRANTS}
