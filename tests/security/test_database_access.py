"""The database from outside, row D8: files for their owner alone, a link that is verified, a role that can little."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from server.storage.engine import DatabaseUnusable
from server.storage.postgres import PostgresEngine
from tests.authority import Authority
from tests.faults.processes import LONG, fleet, until
from tests.postgres import FAST, cluster, fresh_database

MANUAL = Path(__file__).parents[2] / "docs" / "operations.md"


async def test_d8_files_are_for_their_owner_alone_whatever_the_umask_is(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        await running.seed(3, due_in=LONG)
        local = running.servers[0]
        umask = os.umask(0)
        try:
            running.start()
            await until((local.folder / "accounts.db.journal" / ".served").exists)
            local.command("backup", str(local.folder / "backup"))
        finally:
            os.umask(umask)
        ours = [
            *local.folder.glob("accounts.db*"),
            *local.folder.glob("accounts.db.journal/*"),
            local.folder / "backup",
        ]
        assert len(ours) >= 6
        modes = {path.name: path.stat().st_mode & 0o777 for path in ours}
        assert modes.pop("accounts.db.journal") == 0o700
        assert set(modes.values()) == {0o600}, modes


@pytest.fixture(scope="module")
def over_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Path]]:
    """A PostgreSQL with a certificate: its URL, the authority that issued that, and another one."""
    folder = tmp_path_factory.mktemp("tls")
    folder.chmod(0o755)
    authority = Authority()
    key, certificate = authority.issue("ip:127.0.0.1", "dns:localhost")
    files = {"server.key": key, "server.pem": certificate, "ca.pem": authority.pem, "other.pem": Authority("other").pem}
    with cluster(FAST) as url:
        with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
            [data] = connection.execute("SHOW data_directory").fetchone() or [""]
            owner = Path(data).stat()
            for name, pem in files.items():
                there = (Path(data) if name.startswith("server") else folder) / name
                there.write_bytes(pem)
                if name.startswith("server"):
                    there.chmod(0o600)
                    os.chown(there, owner.st_uid, owner.st_gid)
            for setting in ("ssl_cert_file = 'server.pem'", "ssl_key_file = 'server.key'", "ssl = on"):
                connection.execute(f"ALTER SYSTEM SET {setting}".encode())
            connection.execute("SELECT pg_reload_conf()")
        yield url, folder / "ca.pem", folder / "other.pem"


def test_d8_a_postgres_with_the_wrong_certificate_is_not_spoken_to(over_tls: tuple[str, Path, Path]) -> None:
    url, right, wrong = over_tls
    verified = f"{fresh_database(url)}?sslmode=verify-full&sslrootcert="
    engine = PostgresEngine(verified + str(right))
    assert engine.database.execute_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)
    engine.close()
    with pytest.raises(DatabaseUnusable, match="certificate verify failed"):
        PostgresEngine(verified + str(wrong))


async def test_d8_the_service_runs_under_a_role_that_cannot_change_the_schema(tmp_path: Path, postgres: str) -> None:
    """Made by the statements of docs/operations.md as they stand, but for the names."""
    owner = fresh_database(postgres)
    database, role = owner.rpartition("/")[2], f"role_{owner[-12:]}"
    [told] = [block for block in MANUAL.read_text().split("```") if block.startswith("sql") and "CREATE ROLE" in block]
    statements = (
        told.removeprefix("sql").replace("accounts_server", role).replace("DATABASE accounts", f"DATABASE {database}")
    )
    async with fleet(tmp_path, database_url=owner) as running:
        await running.seed(3, due_in=LONG)
        with psycopg.connect(owner, autocommit=True) as connection:
            for statement in filter(str.strip, statements.split(";")):
                connection.execute(statement.encode())
        served = owner.replace("accounts@", f"{role}@")
        config = running.servers[0].config_file
        config.write_text(config.read_text().replace(owner, served))
        running.start()
        running.make_due()
        await until(lambda: running.refreshed() == 3)
        for forbidden in ("DROP TABLE events", "ALTER TABLE events ADD more INT", "CREATE TABLE more (id INT)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                running.sql(forbidden)


async def test_a_role_without_rights_is_told_of_in_a_line(tmp_path: Path, postgres: str) -> None:
    """As after a restore, which brings none."""
    owner = fresh_database(postgres)
    role = f"bare_{owner[-12:]}"
    async with fleet(tmp_path, database_url=owner) as running:
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        config = running.servers[0].config_file
        config.write_text(config.read_text().replace(owner, owner.replace("accounts@", f"{role}@")))
        start = running.servers[0].server_command()
        refused = await asyncio.to_thread(subprocess.run, start, capture_output=True, text=True, timeout=30)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert "permission denied" in refused.stderr and "GRANT" in refused.stderr
