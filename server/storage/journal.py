"""The journal: refreshed token sets that the database did not take, sealed, one file each, synced before it counts."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

from server.accounts.grants import Refreshed
from server.storage.token_sets import pack, unpack
from server.storage.transaction import optional_instant, optional_micros
from server.storage.vault import SealBroken, Vault

log = logging.getLogger(__name__)

UNFINISHED = ".part"


class FileJournal:
    """See `server.accounts.ports.Journal` for what each method promises. The folder is for its owner alone."""

    def __init__(self, folder: Path, vault: Vault, new_id: Callable[[], str]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._folder = folder
        self._vault = vault
        self._new_id = new_id
        self._depth = len(self._names())

    @property
    def depth(self) -> int:
        return self._depth

    async def keep(self, refreshed: Refreshed) -> None:
        await asyncio.to_thread(self._write, self._new_id(), refreshed)
        self._depth += 1

    async def entries(self) -> list[tuple[str, Refreshed]]:
        return await asyncio.to_thread(self._read_all)

    async def erase(self, name: str) -> None:
        await asyncio.to_thread(self._erase, name)
        self._depth -= 1

    def _names(self) -> list[str]:
        """Names are UUIDv7s, so their order is that of their times. What was not finished was never promised."""
        return sorted(path.name for path in self._folder.iterdir() if path.suffix != UNFINISHED)

    def _write(self, name: str, refreshed: Refreshed) -> None:
        sealed = self._vault.seal(pack_refreshed(refreshed), context(name))
        unfinished = self._folder / (name + UNFINISHED)
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as writer:
            writer.write(sealed)
            writer.flush()
            os.fsync(writer.fileno())
        unfinished.rename(self._folder / name)
        self._sync_folder()

    def _read_all(self) -> list[tuple[str, Refreshed]]:
        found = []
        for name in self._names():
            try:
                opened = self._vault.open((self._folder / name).read_bytes(), context(name))
            except SealBroken:
                # It stays where it is, for the operator who has the right key.
                log.critical("a journal entry does not open", extra={"entry": name})
                continue
            found.append((name, unpack_refreshed(opened)))
        return found

    def _erase(self, name: str) -> None:
        (self._folder / name).unlink()
        self._sync_folder()

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def context(name: str) -> tuple[str | int, ...]:
    return ("journal", "refreshed", name)


def pack_refreshed(refreshed: Refreshed) -> bytes:
    return json.dumps(
        {
            "grant_id": refreshed.grant_id,
            "platform": refreshed.platform,
            "generation": refreshed.generation,
            "token_set": pack(refreshed.token_set).decode(),
            "due_time": optional_micros(refreshed.due_time),
        }
    ).encode()


def unpack_refreshed(packed: bytes) -> Refreshed:
    data = json.loads(packed)
    return Refreshed(
        grant_id=data["grant_id"],
        platform=data["platform"],
        generation=data["generation"],
        token_set=unpack(data["token_set"].encode()),
        due_time=optional_instant(data["due_time"]),
    )
