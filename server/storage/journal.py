"""The journal: answers to refreshes that the database did not take, sealed, one file each, synced before it counts.

An entry is written under an unfinished name, synced, renamed, and its folder synced. What a crash left unfinished but
whole is an entry as well: it may be the only copy. What it left torn was never promised.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from server.accounts.grants import Refreshed, UnreadReply
from server.storage.keyring import sync_folder
from server.storage.token_sets import pack, unpack
from server.storage.transaction import optional_instant, optional_micros
from server.storage.vault import SealBroken, Vault, key_id_of

log = logging.getLogger(__name__)

T = TypeVar("T")
Entry: TypeAlias = Refreshed | UnreadReply

THREADS = 4
"""Of its own: what else the process does in threads may hang just when the database does and a pair must go to disk."""
UNFINISHED = ".part"
REWRAPPED = ".rewrapped"
"""The same entry under another key, not yet in its place."""
RESERVE = ".reserve"
RESERVE_BYTES = 2 * 1024 * 1024
"""Room for twice as many entries (of 4 KiB) as refreshes can be in flight, given up when the disk is full."""


class FileJournal:
    """See `server.accounts.ports.Journal` for what each method promises. The folder is for its owner alone."""

    def __init__(self, folder: Path, vault: Vault, new_id: Callable[[], str]) -> None:
        """Raises OSError."""
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            sync_folder(folder.parent)
        folder.chmod(0o700)
        self._folder = folder
        self._vault = vault
        self._new_id = new_id
        self._told: set[str] = set()
        self._changing = threading.Lock()
        self._finish_whole_entries()
        self._waiting = set(self._names())
        self._reserved = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="journal")

    @property
    def depth(self) -> int:
        return len(self._waiting)

    @property
    def ready(self) -> bool:
        return self._reserved

    async def make_ready(self) -> None:
        if not self._reserved:
            await self._in_thread(self._reserve)
            self._reserved = True

    async def keep(self, entry: Entry) -> None:
        name = self._new_id()
        # Counted first: a replay may find and erase the entry while its writer still waits for the folder's sync.
        self._waiting.add(name)
        try:
            try:
                await self._in_thread(self._write, name, entry)
            except OSError:
                # The disk is full, or worse: what was set aside is given up, and nothing is claimed until it is back.
                self._reserved = False
                await self._in_thread(self._give_up_reserve)
                await self._in_thread(self._write, name, entry)
        except OSError:
            self._waiting.discard(name)
            raise

    async def entries(self) -> list[tuple[str, Entry]]:
        return await self._in_thread(self._read_all)

    async def erase(self, name: str) -> None:
        await self._in_thread(self._erase, name)
        self._waiting.discard(name)

    def key_ids(self) -> set[str]:
        """The keys that what is waiting is wrapped with. Raises OSError."""
        return set(key_ids_in(self._folder))

    def rewrap(self) -> None:
        """Wraps what is waiting with the active key; no entry is opened. Raises OSError."""
        for name in self._names():
            # An entry that is erased meanwhile must not come back: it would be taken for a newer token set.
            with self._changing, contextlib.suppress(SealBroken, FileNotFoundError):
                sealed = (self._folder / name).read_bytes()
                if key_id_of(sealed) != self._vault.ring.active.id:
                    self._put(name, self._vault.rewrap(sealed, context(name)), REWRAPPED)

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _names(self) -> list[str]:
        """Names are UUIDv7s, so their order is that of their times."""
        return sorted(path.name for path in self._folder.iterdir() if path.is_file() and "." not in path.name)

    def _reserve(self) -> None:
        """Sets the room aside afresh, so that a folder that cannot be written to is noticed."""
        file = os.open(self._folder / RESERVE, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(file, 0, RESERVE_BYTES)
            os.fsync(file)
        finally:
            os.close(file)
        sync_folder(self._folder)

    def _give_up_reserve(self) -> None:
        (self._folder / RESERVE).unlink(missing_ok=True)

    def _finish_whole_entries(self) -> None:
        for copy in self._folder.glob("*" + REWRAPPED):
            copy.unlink()
        for unfinished in self._folder.glob("*" + UNFINISHED):
            with contextlib.suppress(SealBroken):
                self._vault.open(unfinished.read_bytes(), context(unfinished.stem))
                unfinished.rename(unfinished.with_suffix(""))
        sync_folder(self._folder)

    def _write(self, name: str, entry: Entry) -> None:
        try:
            self._put(name, self._vault.seal(pack_entry(entry), context(name)), UNFINISHED)
        except OSError:
            # It will be tried again under another name; a full disk must not fill with what was left.
            (self._folder / name).with_suffix(UNFINISHED).unlink(missing_ok=True)
            (self._folder / name).unlink(missing_ok=True)
            raise

    def _put(self, name: str, sealed: bytes, suffix: str) -> None:
        finished = self._folder / name
        unfinished = finished.with_suffix(suffix)
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as writer:
            writer.write(sealed)
            writer.flush()
            os.fsync(writer.fileno())
        unfinished.rename(finished)
        sync_folder(self._folder)

    def _read_all(self) -> list[tuple[str, Entry]]:
        found = []
        for name in self._names():
            try:
                opened = self._vault.open((self._folder / name).read_bytes(), context(name))
            except SealBroken:
                self._tell(name)
                continue
            found.append((name, unpack_entry(opened)))
        return found

    def _tell(self, name: str) -> None:
        """Once, since the journal is read each second. The entry stays, for the operator who has the right key."""
        if name not in self._told:
            self._told.add(name)
            log.critical("a journal entry does not open", extra={"entry": name})

    def _erase(self, name: str) -> None:
        with self._changing:
            (self._folder / name).unlink(missing_ok=True)
            sync_folder(self._folder)


def key_ids_in(folder: Path) -> Iterator[str]:
    """The key of each entry in a journal's folder, of those that a crash left unfinished too. Raises OSError."""
    for path in folder.iterdir() if folder.exists() else ():
        # A dot begins the name of the reserve alone; an entry that goes away meanwhile uses no key.
        if not path.name.startswith("."):
            with contextlib.suppress(SealBroken, FileNotFoundError):
                yield key_id_of(path.read_bytes())


def context(name: str) -> tuple[str | int, ...]:
    return ("journal", "refreshed", name)


def pack_entry(entry: Entry) -> bytes:
    return pack_unread(entry) if isinstance(entry, UnreadReply) else pack_refreshed(entry)


def unpack_entry(packed: bytes) -> Entry:
    data = json.loads(packed)
    return unpack_unread(data) if "unread_reply" in data else unpack_refreshed(data)


def pack_unread(unread: UnreadReply) -> bytes:
    reply = base64.b64encode(unread.reply).decode()
    return json.dumps({"grant_id": unread.grant_id, "generation": unread.generation, "unread_reply": reply}).encode()


def unpack_unread(data: dict[str, Any]) -> UnreadReply:
    return UnreadReply(data["grant_id"], data["generation"], base64.b64decode(data["unread_reply"]))


def pack_refreshed(refreshed: Refreshed) -> bytes:
    return json.dumps(
        {
            "grant_id": refreshed.grant_id,
            "profile_id": refreshed.profile_id,
            "scopes_before": refreshed.scopes_before,
            "platform": refreshed.platform,
            "generation": refreshed.generation,
            "token_set": pack(refreshed.token_set).decode(),
            "due_time": optional_micros(refreshed.due_time),
        }
    ).encode()


def unpack_refreshed(data: dict[str, Any]) -> Refreshed:
    return Refreshed(
        grant_id=data["grant_id"],
        profile_id=data["profile_id"],
        scopes_before=tuple(data["scopes_before"]),
        platform=data["platform"],
        generation=data["generation"],
        token_set=unpack(data["token_set"].encode()),
        due_time=optional_instant(data["due_time"]),
    )
