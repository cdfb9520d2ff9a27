"""Who uses which key: what lets a key be activated only when every process knows it, and retired when none uses it.

Each process says in the database which keys it can open with and which it may still seal with. It says so before it
serves and whenever that changes, and takes it back when it stops. One that was killed left its row behind: it counts
as alive until it is started again or an operator forgets it, so a process that merely stood still is never passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from peewee import Database

from server.storage.keyring import KeyRing, KeyRingError
from server.storage.migrate import check_keys, check_not_retired, is_retired, register_active_key
from server.storage.schema import CounterRow, KeyCheckRow, KeyLifeRow, KeyUserRow

WEAR_LIMIT = 2**31
"""After so many wraps a key should be followed by another; at 2**32 random nonces begin to be worth worrying about."""


def take_turn(database: Database) -> None:
    """Changes of who knows and uses what queue for this row until their transactions end."""
    CounterRow.update(value=CounterRow.value + 1).where(CounterRow.name == "keys").execute(database)


def join(database: Database, process: str, ring: KeyRing, uses: Collection[str], now_us: int, *, alone: bool) -> None:
    """A process that is about to serve says what it knows. Raises KeyRingError if it must not serve with this ring.

    Who is `alone` with the database knows that all others are gone.
    """
    take_turn(database)
    if alone:
        forget_all(database)
    check_keys(database, ring)
    check_not_retired(database, ring)
    if not is_entered(database, ring.active.id):
        enter(database, ring, ring.active.id, besides=process)
    say(database, process, ring, uses, now_us)


def say(database: Database, process: str, ring: KeyRing | None, uses: Collection[str], now_us: int) -> None:
    """Replaces what a process said before; without a ring it has stopped."""
    said = {"knows": None if ring is None else " ".join(ring), "uses": " ".join(sorted(uses)), "time": now_us}
    KeyUserRow.insert(process=process, **said).on_conflict(conflict_target=[KeyUserRow.process], update=said).execute(
        database
    )


def forget(database: Database, process: str) -> bool:
    """Whether there was such a process."""
    return bool(KeyUserRow.delete().where(KeyUserRow.process == process).execute(database))


def is_user(database: Database, process: str) -> bool:
    return KeyUserRow.select().where(KeyUserRow.process == process).first(database) is not None


def forget_all(database: Database) -> None:
    KeyUserRow.delete().execute(database)


def users(database: Database) -> list[Any]:
    return list(KeyUserRow.select().order_by(KeyUserRow.process).execute(database))


def is_entered(database: Database, key_id: str) -> bool:
    """Whether values may be sealed with it: every process that starts from now on must have it."""
    return KeyCheckRow.select().where(KeyCheckRow.key_id == key_id).first(database) is not None


def enter(database: Database, ring: KeyRing, key_id: str, besides: str = "") -> None:
    """Lets a key seal. Raises KeyRingError, naming the processes that do not know it yet."""
    take_turn(database)
    if is_retired(database, key_id):
        raise KeyRingError(f"key {key_id!r} is retired")
    ignorant = [
        row.process
        for row in users(database)
        if row.process != besides and row.knows is not None and key_id not in row.knows.split()
    ]
    if ignorant:
        raise KeyRingError(
            f"key {key_id!r} is not known to {', '.join(ignorant)}: bring the key file there; it is picked up within "
            "seconds. A process that is gone for good: keys forget PROCESS"
        )
    register_active_key(database, ring, key_id)


def successor(database: Database, ring: KeyRing) -> str | None:
    """The newest key of a ring that may seal where its active one is retired; None where it is not, or none may."""
    if not is_retired(database, ring.active.id):
        return None
    entered = {row.key_id for row in KeyCheckRow.select(KeyCheckRow.key_id).execute(database)}
    fit = [each for each in ring.facts if each.id in ring and each.id in entered and not is_retired(database, each.id)]
    return max(fit, key=lambda each: each.create_time).id if fit else None


def start_retiring(database: Database, key_id: str, now_us: int) -> None:
    """From now on nobody begins to seal with it. Raises KeyRingError, naming the processes that may still do so."""
    take_turn(database)
    using = [row.process for row in users(database) if key_id in row.uses.split()]
    if using:
        raise KeyRingError(
            f"key {key_id!r} is still used by {', '.join(using)}. That ends half a minute after it has taken up a file "
            "with another active key, once its journal is empty. A process that is gone for good: keys forget PROCESS"
        )
    if KeyLifeRow.select().where(KeyLifeRow.key_id == key_id).first(database) is None:
        KeyLifeRow.insert(key_id=key_id, retire_time=now_us).execute(database)
    else:
        KeyLifeRow.update(retire_time=now_us).where(KeyLifeRow.key_id == key_id).execute(database)


def take_back_retiring(database: Database, key_id: str) -> None:
    KeyLifeRow.update(retire_time=None).where(KeyLifeRow.key_id == key_id).execute(database)


def finish_retiring(database: Database, key_id: str) -> None:
    """Rings that lack the key are welcome from now on."""
    KeyCheckRow.delete().where(KeyCheckRow.key_id == key_id).execute(database)


def count_wraps(database: Database, wraps: Mapping[str, int]) -> None:
    for key_id, number in sorted(wraps.items()):
        KeyLifeRow.update(wraps=KeyLifeRow.wraps + number).where(KeyLifeRow.key_id == key_id).execute(database)


def count_wraps_unless_retired(database: Database, key_id: str, number: int) -> None:
    """Raises KeyRingError if it is retired; else it is not until this transaction ends."""
    mine = (KeyLifeRow.key_id == key_id) & KeyLifeRow.retire_time.is_null()
    if not KeyLifeRow.update(wraps=KeyLifeRow.wraps + number).where(mine).execute(database):
        raise KeyRingError(f"key {key_id!r} was retired meanwhile; begin again with the present key file")


def wraps_of(database: Database, key_ids: Iterable[str]) -> dict[str, int]:
    rows = KeyLifeRow.select().where(KeyLifeRow.key_id.in_(list(key_ids))).execute(database)
    return {row.key_id: row.wraps for row in rows}
