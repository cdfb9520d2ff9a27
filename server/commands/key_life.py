"""What the `keys` commands do. The order of each is such that it can be killed anywhere and run again.

Nobody seals with a key before every process knows it: it is added as decrypt-only, entered in the database once every
process has said that it knows it, and only then made active in the file. Nobody loses a value to a retired key: first
no process uses it, then nobody may begin to, then nothing is wrapped with it, and only then it is erased.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from server.accounts.events import EventKind
from server.commands.operate import columns, operator, shown
from server.config import Settings
from server.storage import key_file, key_use
from server.storage.engine import DatabaseInUse, Engine, hold
from server.storage.journal import key_ids_in
from server.storage.key_watch import fits
from server.storage.keyring import KeyRing, KeyRingError
from server.storage.migrate import check_keys, check_schema, holds_values
from server.storage.rewrap import Rewrapper
from server.storage.sealed import count_by_key
from server.storage.transaction import instant, micros
from server.storage.vault import Vault

if TYPE_CHECKING:
    from server.storage.store import Store

JOURNAL = "journal here"
HEARD_SECONDS = 5.0
"""By then a server that lives, and was taken for dead, has said again which keys it uses: it looks every two."""


def refuse_over_data(settings: Settings) -> None:
    """Raises KeyRingError where a database holds what a new key would not open, DatabaseUnusable if none answers."""
    from server.parts import open_engine  # noqa: PLC0415 (imports the whole server)

    path = settings.database.path
    if path is not None:
        if path.exists():
            raise KeyRingError(f"{path} exists: a new key would not open what it holds. Restore its key file instead")
        return
    engine = open_engine(settings)
    try:
        if holds_values(engine.database):
            raise KeyRingError("the database holds values that a new key would not open. Restore its key file instead")
    finally:
        engine.close()


async def rotate(settings: Settings) -> str:
    """Adds a key that only opens; its id."""
    key = key_file.coming()
    async with database_beside(settings) as (_, _, store):
        await store.operate(EventKind.KEY_ADDED, operator=operator(), key=key["id"])
    return key_file.add(settings.keys.file, key)


async def activate(settings: Settings, key_id: str) -> None:
    """Raises KeyRingError unless every process knows the key."""
    async with database_beside(settings) as (engine, ring, store):
        if key_id not in ring:
            raise KeyRingError(f"{settings.keys.file} holds no key {key_id!r} that opens")
        await forget_the_dead(settings, engine)
        await store.operate(
            EventKind.KEY_ACTIVATED,
            operator=operator(),
            work=lambda database: key_use.enter(database, ring, key_id),
            key=key_id,
        )
    key_file.activate(settings.keys.file, key_id)


@asynccontextmanager
async def rewrapping(settings: Settings, rate: float) -> AsyncIterator[tuple[Rewrapper, int]]:
    """What works off the database, and how many values it will find."""
    async with database_beside(settings) as (engine, ring, store):
        await engine.read(lambda database: fits(database, ring))
        counts = await engine.survey(count_by_key)
        total = sum(n for column in counts.values() for key_id, n in column.items() if key_id != ring.active.id)
        await store.operate(EventKind.REWRAP_BEGUN, operator=operator(), key=ring.active.id, count=total)
        yield Rewrapper(engine, Vault(ring), rate=rate), total


async def retire(settings: Settings, key_id: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Raises KeyRingError while the key is active, may still be used by a process, or wraps anything.

    Beside servers it waits for HEARD_SECONDS, so that one that was forgotten by mistake is heard.
    """
    async with database_beside(settings) as (engine, ring, store):
        if key_id not in {each.id for each in ring.facts}:
            raise KeyRingError(f"{settings.keys.file} holds no key {key_id!r}")
        if key_id == ring.active.id:
            raise KeyRingError(f"key {key_id!r} is the active one")
        alone = await forget_the_dead(settings, engine)
        now = micros(engine.clock())
        await engine.write(lambda database: key_use.start_retiring(database, key_id, now))
        try:
            if not alone:
                await sleep(HEARD_SECONDS)
                await engine.write(lambda database: key_use.start_retiring(database, key_id, now))
            if still := await references(settings, engine, key_id):
                told = ", ".join(f"{number} in {name}" for name, number in still.items())
                wait = "run: keys rewrap (a server empties its journal)"
                raise KeyRingError(f"key {key_id!r} still wraps {told}; {wait}")
        except KeyRingError:
            await engine.write(lambda database: key_use.take_back_retiring(database, key_id))
            raise
        await store.operate(
            EventKind.KEY_RETIRED,
            operator=operator(),
            work=lambda database: key_use.finish_retiring(database, key_id),
            key=key_id,
        )
    key_file.retire(settings.keys.file, key_id)


async def forget(settings: Settings, process: str) -> None:
    """Raises KeyRingError if there is no such process."""

    def forget_it(database: Any) -> None:
        if not key_use.forget(database, process):
            raise KeyRingError(f"no process {process!r}; see keys status")

    async with database_beside(settings) as (_, _, store):
        await store.operate(EventKind.PROCESS_FORGOTTEN, operator=operator(), work=forget_it, process=process)


async def status(settings: Settings) -> list[str]:
    """The keys, where the values are that they wrap, and what each process knows and uses."""
    async with database_beside(settings) as (engine, ring, _):
        counts = await all_counts(settings, engine)
        users = await engine.read(key_use.users)
        wraps = await engine.read(lambda database: key_use.wraps_of(database, [each.id for each in ring.facts]))
    wrapping = sum(counts.values(), Counter())
    rows = [("KEY", "STATE", "MADE", "WORN", "STILL WRAPS")]
    for each in ring.facts:
        worn = f"{wraps.get(each.id, 0) / key_use.WEAR_LIMIT:.1%}"
        rows.append((each.id, each.state, each.create_time[:10], worn, str(wrapping[each.id])))
    rows += [(key_id, "not in the key file", "", "", str(wrapping[key_id])) for key_id in strays(ring, wrapping)]
    lines = list(columns(rows))
    if wrapping:
        where = [("KEY", "WRAPS", "IN")]
        where += [(key_id, str(n), name) for name, found in counts.items() for key_id, n in sorted(found.items())]
        lines += ["", *columns(where)]
    for user in users:
        lines += [
            "",
            f"process {user.process}",
            f"  since {shown(instant(user.time))}" + (", stopped" if user.knows is None else f" it knows {user.knows}"),
            f"  may still seal with, or has in its journal: {user.uses or 'none'}",
        ]
    return lines


def strays(ring: KeyRing, wrapping: Iterable[str]) -> list[str]:
    """Keys that something is wrapped with and that the ring has no word of."""
    return sorted(set(wrapping) - {each.id for each in ring.facts})


async def references(settings: Settings, engine: Engine, key_id: str) -> dict[str, int]:
    counts = await all_counts(settings, engine)
    return {name: counted[key_id] for name, counted in counts.items() if counted[key_id]}


async def all_counts(settings: Settings, engine: Engine) -> dict[str, Counter[str]]:
    """How many values each key wraps, by column; the journal on this machine included."""
    counts = await engine.survey(count_by_key)
    return {**counts, JOURNAL: Counter(key_ids_in(settings.journal_folder))}


@asynccontextmanager
async def database_beside(settings: Settings) -> AsyncIterator[tuple[Engine, KeyRing, Store]]:
    """The database, beside a running server or without one. Raises KeyRingError, SchemaMismatch, DatabaseUnusable."""
    from server.parts import new_id, open_engine  # noqa: PLC0415 (imports the whole server)
    from server.storage.store import Store  # noqa: PLC0415

    ring = KeyRing.load(settings.keys.file)
    engine = open_engine(settings, alone=False)
    try:
        check_schema(engine.database)
        check_keys(engine.database, ring)
        yield engine, ring, Store(engine, Vault(ring), new_id)
    finally:
        engine.close()


async def forget_the_dead(settings: Settings, engine: Engine) -> bool:
    """Who can hold a SQLite file knows that no server does: what one that was killed has said is void.

    Says whether it could; nobody can know that of PostgreSQL.
    """
    path = settings.database.path
    if path is None:
        return False
    try:
        lock = hold(path)
    except DatabaseInUse:
        return False
    try:
        await engine.write(key_use.forget_all)
    finally:
        os.close(lock)
    return True
