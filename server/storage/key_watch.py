"""The key watch: a running process takes up a changed key file, and says in the database what it knows and uses."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from peewee import Database

from server.accounts.errors import StoreUnavailable
from server.storage import key_use
from server.storage.engine import Engine
from server.storage.journal import FileJournal
from server.storage.keyring import KeyRing, KeyRingError
from server.storage.migrate import check_keys, check_not_retired
from server.storage.transaction import micros
from server.storage.vault import Vault

log = logging.getLogger(__name__)

SETTLE_SECONDS = 30.0
"""So long after another key became active a transaction may still be under way that sealed with the one before. None
lasts that long: statements are given up after 10 s, a transaction that waits for its next one after 15."""

State = tuple[tuple[str, ...], tuple[str, ...]]


class NotActivated(KeyRingError):
    """The file names an active key of which it is not known that every process has it."""


class KeyWatch:
    """Of one process, by a name that a restart gives it again."""

    def __init__(
        self,
        path: Path,
        engine: Engine,
        vault: Vault,
        journal: FileJournal,
        process: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._engine = engine
        self._vault = vault
        self._journal = journal
        self._process = process
        self._monotonic = monotonic
        self._settling: dict[str, float] = {}
        """Keys that were active, and until when something may still be sealed with them."""
        self._seen: tuple[int, ...] = ()
        self._refused = ""
        self._said: State | None = None
        self.wraps = 0
        """How many data keys the active key has wrapped, in all processes, as last counted."""

    async def join(self) -> None:
        """Before anything is served. Raises KeyRingError if this process must not serve with its ring."""
        state = await self._state()
        alone, now = not self._engine.locks_rows, micros(self._engine.clock())
        ring = self._vault.ring
        await self._engine.write(lambda db: key_use.join(db, self._process, ring, state[1], now, alone=alone))
        self._said = state

    async def follow(self) -> None:
        """Takes up a changed key file; a ring that does not fit the database is told of, and the present one kept."""
        try:
            await self._take_up()
            await self._say()
            await self._count()
        except StoreUnavailable:
            log.debug("the database does not answer; keys are looked after when it does")

    async def leave(self) -> None:
        """After the last write. What is left in the journal still needs its keys."""
        kept = await asyncio.to_thread(self._journal.key_ids)
        now = micros(self._engine.clock())

        def write(database: Database) -> None:
            if kept:
                key_use.say(database, self._process, None, kept, now)
            else:
                key_use.forget(database, self._process)

        await self._engine.write(write)

    async def _take_up(self) -> None:
        try:
            seen = signature(self._path)
            if seen == self._seen:
                return
            fresh = KeyRing.load(self._path)
            await self._engine.read(lambda db: fits(db, fresh))
        except NotActivated as error:
            # Its keys are learned all the same: only then can it be activated.
            if (active := self._vault.ring.active.id) in fresh:
                self._vault.use(fresh.sealing_with(active))
            self._refuse(error)
            return
        except (KeyRingError, OSError) as error:
            self._refuse(error)
            return
        before = self._vault.ring
        if fresh.active.id != before.active.id and not await self._announce(fresh):
            return
        self._vault.use(fresh)
        if fresh.active.id != before.active.id:
            self._settling[before.active.id] = self._monotonic() + SETTLE_SECONDS
        self._settling.pop(fresh.active.id, None)
        if (self._seen and set(fresh) != set(before)) or fresh.active.id != before.active.id:
            log.info("the key file is taken up", extra={"active": fresh.active.id, "keys": sorted(fresh)})
        self._seen, self._refused = seen, ""

    async def _announce(self, fresh: KeyRing) -> bool:
        """Says that it is about to seal with another key, before it does: from then on the key cannot be retired.

        False if it was retired since it was looked at.
        """
        if (active := self._vault.ring.active.id) in fresh:
            self._vault.use(fresh.sealing_with(active))  # who says that it knows a key must be able to open with it
        (_, uses), now = await self._state(), micros(self._engine.clock())
        coming = tuple(sorted({*uses, fresh.active.id}))

        def announce(database: Database) -> None:
            self._say_in(database, fresh, coming, now)
            check_not_retired(database, fresh)

        try:
            await self._engine.write(announce)
        except KeyRingError as error:
            self._refuse(error)
            return False
        self._said = tuple(sorted(fresh)), coming
        return True

    def _refuse(self, error: Exception) -> None:
        """Told once, since the file is looked at every other second."""
        if str(error) != self._refused:
            self._refused = str(error)
            log.error("the key file is not taken up; the active key of before is kept", extra={"why": self._refused})

    async def _say(self) -> None:
        if self._journal.depth:
            await asyncio.to_thread(self._journal.rewrap)
        # Somebody may have taken a process that lives for dead: its keys must not be retired for that.
        forgotten = not await self._engine.read(lambda db: key_use.is_user(db, self._process))
        if forgotten:
            log.warning("this process was forgotten and lives; it says again which keys it uses")
            await self._leave_a_retired_key()
        state = await self._state()
        if forgotten or state != self._said:
            now, ring = micros(self._engine.clock()), self._vault.ring
            await self._engine.write(lambda db: self._say_in(db, ring, state[1], now))
            self._said = state

    async def _leave_a_retired_key(self) -> None:
        """It stood still, and its active key was retired: what it sealed with that since then opens nowhere else."""
        ring = self._vault.ring
        other = await self._engine.read(lambda db: key_use.successor(db, ring))
        if other is not None:
            log.critical("the active key is retired; another one seals", extra={"key": ring.active.id, "other": other})
            self._vault.use(ring.sealing_with(other))

    def _say_in(self, database: Database, ring: KeyRing, uses: tuple[str, ...], now_us: int) -> None:
        key_use.take_turn(database)
        key_use.say(database, self._process, ring, uses, now_us)

    async def _state(self) -> State:
        now = self._monotonic()
        self._settling = {key_id: until for key_id, until in self._settling.items() if until > now}
        uses = {self._vault.ring.active.id, *self._settling, *await asyncio.to_thread(self._journal.key_ids)}
        return tuple(sorted(self._vault.ring)), tuple(sorted(uses))

    async def _count(self) -> None:
        wraps, active = self._vault.take_wraps(), self._vault.ring.active.id
        if not wraps:
            return

        def write(database: Database) -> int:
            key_use.count_wraps(database, wraps)
            return key_use.wraps_of(database, [active]).get(active, 0)

        try:
            before, self.wraps = self.wraps, await self._engine.write(write)
        except StoreUnavailable:
            self._vault.give_back_wraps(wraps)
            raise
        if before < key_use.WEAR_LIMIT <= self.wraps:
            log.critical("the active key has wrapped very many values; run: keys rotate", extra={"key": active})


def signature(path: Path) -> tuple[int, ...]:
    """What changes when the file is replaced or written. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def fits(database: Database, ring: KeyRing) -> None:
    """Raises KeyRingError unless a running process may go over to this ring."""
    check_keys(database, ring)
    check_not_retired(database, ring)
    if not key_use.is_entered(database, ring.active.id):
        raise NotActivated(f"key {ring.active.id!r} is active in the key file; finish that by: keys activate ID")
