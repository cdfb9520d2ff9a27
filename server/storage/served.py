"""Until when a database was served, noted in it and in a file beside: a database that has gone back is noticed.

The database is written first, so the file never says more than the database did.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

from server.accounts.errors import StoreUnavailable
from server.storage.engine import DatabaseUnusable
from server.storage.keyring import sync_folder
from server.storage.store import Store

log = logging.getLogger(__name__)

NAME = ".served"
COMING = ".served.coming"


class NotPutToUse(DatabaseUnusable):
    """The database was restored: its refresh tokens may be spent, and nobody has dealt with that yet."""


class ServedMark:
    """What this machine knows of the database. The folder is the journal's: it outlives a restore of the database."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._file = folder / NAME
        self._store = store

    async def check(self) -> None:
        """Raises NotPutToUse for a backup, and for a database that has gone back behind what this machine knows."""
        if why := await self.sign_of_restore():
            raise NotPutToUse(why)

    async def sign_of_restore(self) -> str:
        """What `check` would raise; empty if nothing."""
        return await self._store.sign_of_restore(self.known())

    def known(self) -> int:
        """In microseconds since 1970; 0 if nothing is known."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(self._file.read_text())
        return 0

    async def keep(self) -> None:
        """Notes that it is served now; where that cannot be written it is left for the next time.

        So readiness learns of a database that takes no writes, also while there is nothing else to write, and of one
        that has gone back, which is not written to (see `Store.serve`).
        """
        try:
            await asyncio.to_thread(self._write, await self._store.serve(self.known()))
        except (StoreUnavailable, OSError) as error:
            log.debug("not noted that the database is served", extra={"why": str(error)})

    def _write(self, until: int) -> None:
        coming = self._file.with_name(COMING)
        file = os.open(coming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "w") as writer:
            writer.write(str(until))
            writer.flush()
            os.fsync(writer.fileno())
        coming.replace(self._file)
        sync_folder(self._file.parent)
