"""Changes to a key file: a key is added, made active, or retired. The file is replaced as a whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.storage.keyring import (
    ACTIVE,
    DECRYPT_ONLY,
    RETIRED,
    KeyRing,
    KeyRingError,
    new_entry,
    read_private,
    sync_folder,
)

Entries = list[dict[str, Any]]


def coming() -> dict[str, str]:
    """A new key, to be added."""
    return new_entry(DECRYPT_ONLY)


def add(path: Path, entry: dict[str, str] | None = None) -> str:
    """Adds a new key that only opens, until it is activated; its id. Raises KeyRingError, OSError."""
    added = entry or coming()
    change(path, lambda entries: entries.append(added))
    return added["id"]


def activate(path: Path, key_id: str) -> None:
    """Makes a key the one that seals; the one that did so only opens from now on. Raises KeyRingError, OSError."""

    def swap(entries: Entries) -> None:
        for entry in entries:
            if entry["id"] == key_id:
                entry["state"] = ACTIVE
            elif entry["state"] == ACTIVE:
                entry["state"] = DECRYPT_ONLY

    change(path, swap)


def retire(path: Path, key_id: str) -> None:
    """Leaves nothing of a key but its id: what it wraps, in backups too, never opens again. Raises KeyRingError.

    Who calls it has made sure that nothing in the database is wrapped with it.
    """

    def forget(entries: Entries) -> None:
        for entry in entries:
            if entry["id"] == key_id:
                entry["state"] = RETIRED
                entry["retire_time"] = datetime.now(UTC).isoformat(timespec="seconds")
                entry.pop("key", None)

    change(path, forget)


def change(path: Path, edit: Callable[[Entries], None]) -> None:
    """Edits the entries of a sound key file and puts the result in its place, synced, if it is sound as well."""
    target = path.resolve()  # behind a symbolic link the file is replaced, not the link
    with alone_with(target.parent):
        KeyRing.load(target)
        whole = json.loads(read_private(target))
        edit(whole["keys"])
        fresh = target.with_name(f".{target.name}.new")
        fresh.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as writer:
                json.dump(whole, writer, indent=2)
                writer.flush()
                os.fsync(writer.fileno())
            KeyRing.load(fresh)
            fresh.rename(target)
            sync_folder(target.parent)
        except BaseException:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise


@contextmanager
def alone_with(folder: Path) -> Iterator[None]:
    """One change at a time; the kernel lets go when the process ends."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KeyRingError(f"{folder} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
