"""Migrations and key checks: what a database must have before it is served, and the one command that gives it that."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

from peewee import Database, PostgresqlDatabase, ProgrammingError
from playhouse.migrations import Runner

from server.storage.keyring import KeyRing, KeyRingError
from server.storage.schema import KeyCheckRow, KeyLifeRow
from server.storage.vault import Vault

MIGRATIONS = Path(__file__).parent / "migrations"


class SchemaMismatch(Exception):
    """The database is not at the schema that this version serves."""


def migrate(database: Database, ring: KeyRing) -> list[str]:
    """Applies what is missing, each migration in a transaction; their names. Raises KeyRingError, SchemaMismatch.

    A key ring that does not fit the database is refused before anything is changed.
    """
    runner = Runner(database, str(MIGRATIONS))
    status = runner.status()
    refuse_unknown(status)
    if any(step.applied for step in status):
        check_keys(database, ring)
        if database.table_exists("key_lives"):
            check_not_retired(database, ring)
    runner.migrator.vault = Vault(ring)
    without_haste(database)
    applied: list[str] = runner.up()
    register_active_key(database, ring)
    return applied


def without_haste(database: Database) -> None:
    """A statement of a migration may go through a large table, for which the time that others get is too short."""
    if isinstance(database, PostgresqlDatabase):
        database.execute_sql("SET statement_timeout = 0")


def check_schema(database: Database) -> None:
    """Raises SchemaMismatch unless exactly the known migrations are applied."""
    try:
        status = Runner(database, str(MIGRATIONS)).status()
    except ProgrammingError as error:
        if "permission denied" not in str(error):
            raise
        told = str(error).splitlines()[0]
        raise SchemaMismatch(f"{told}; after a restore, repeat the GRANT lines of docs/operations.md") from error
    refuse_unknown(status)
    missing = [step.name for step in status if not step.applied]
    if missing:
        raise SchemaMismatch(
            f"the database lacks migrations ({', '.join(missing)}); run: python -m server --config FILE migrate"
        )


def refuse_unknown(status: list[Any]) -> None:
    unknown = [step.name for step in status if step.path is None]
    if unknown:
        raise SchemaMismatch(f"the database was migrated by a newer version ({', '.join(unknown)}); serve it with that")


def holds_values(database: Database) -> bool:
    """Whether anything was ever sealed in it."""
    return database.table_exists("key_checks") and KeyCheckRow.select().first(database) is not None


def check_keys(database: Database, ring: KeyRing) -> None:
    """Raises KeyRingError if the database was written with a key that the ring lacks, or has under another value."""
    for row in KeyCheckRow.select().execute(database):
        if row.key_id not in ring:
            raise KeyRingError(f"the database uses key {row.key_id!r}, which the key ring does not hold")
        if not hmac.compare_digest(bytes(row.value), ring.check_value(row.key_id)):
            raise KeyRingError(f"key {row.key_id!r} of the key ring is not the one that the database was written with")


def check_not_retired(database: Database, ring: KeyRing) -> None:
    """Raises KeyRingError for a key file from before a retirement."""
    if is_retired(database, ring.active.id):
        raise KeyRingError(f"key {ring.active.id!r} is retired; this key file is an old one")


def is_retired(database: Database, key_id: str) -> bool:
    row = KeyLifeRow.select().where(KeyLifeRow.key_id == key_id).first(database)
    return row is not None and row.retire_time is not None


def register_active_key(database: Database, ring: KeyRing, key_id: str = "") -> None:
    """Notes the check value of the key that new values are sealed with; from now on every ring must hold it."""
    key_id = key_id or ring.active.id
    if KeyCheckRow.select().where(KeyCheckRow.key_id == key_id).first(database) is None:
        KeyCheckRow.insert(key_id=key_id, value=ring.check_value(key_id)).execute(database)
    if KeyLifeRow.select().where(KeyLifeRow.key_id == key_id).first(database) is None:
        KeyLifeRow.insert(key_id=key_id).execute(database)
