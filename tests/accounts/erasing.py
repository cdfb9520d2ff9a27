"""What tests of erasing begin with, and where they look for what should be gone."""

from datetime import timedelta
from typing import Any

from server.accounts.audit import Linker
from server.accounts.model import Identity
from server.storage.engine import Engine
from tests.accounts.conftest import House

PROFILE = "acme/ada@example.com"
PERSONAL = (PROFILE, "ada-handle", "Ada Lovelace", "other-handle", "an error that names ada")
TABLES = ("accounts", "grants", "authorization_requests", "revocations", "events", "audit_chain", "erased_accounts")


def rows(engine: Engine, table: str) -> list[tuple[Any, ...]]:
    return list(engine.database.execute_sql(f"SELECT * FROM {table}").fetchall())


def everything(engine: Engine, *more: str) -> str:
    return repr({table: rows(engine, table) for table in (*TABLES, *more)})


async def connect(house: House, user: str, handle: str, profile_id: str = PROFILE) -> Any:
    house.platform.answer_next("identify", (Identity(user, handle, "Ada Lovelace"),))
    return await house.connect(profile_id=profile_id)


async def settled(house: House) -> None:
    """Lets the calendar's jobs do what is left, over the time that they wait for."""
    for _ in range(3):
        house.clock.offset += timedelta(minutes=11)
        await house.store.sweep_requests(limit=99)
        await house.revoker.work_off("twitter")
        await house.eraser.work_off()
        await Linker(house.store, "me").work_off()
