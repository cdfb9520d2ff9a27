"""Deployments whose server may be killed: one for each kind of database, used by one test after another."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.faults.victim import USERS, Victim, on_postgres, on_sqlite
from tests.postgres import fresh_database


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """On a SQLite file, with connected accounts."""
    with on_sqlite(tmp_path_factory.mktemp("victim")) as victim:
        asyncio.run(populate(victim))
        yield victim


@pytest.fixture(scope="module")
def victim_on_postgres(tmp_path_factory: pytest.TempPathFactory, postgres: str) -> Iterator[Victim]:
    with on_postgres(tmp_path_factory.mktemp("victim"), fresh_database(postgres)) as victim:
        asyncio.run(populate(victim))
        yield victim


async def populate(victim: Victim) -> None:
    async with victim.sandbox() as sandbox:
        await sandbox.settings(keep_alive=False)  # so that each refresh connects
    await victim.connect(*USERS)
