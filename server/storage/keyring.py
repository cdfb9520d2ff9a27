"""The key ring: the key-encryption keys and their states, from a key file or mounted secret.

A key is decrypt-only until every process knows it, then active, decrypt-only again when the next one is active, and
retired when nothing is wrapped with it any more: then only its id is left, so that it is never given again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KEY_BYTES = 32
ACTIVE, DECRYPT_ONLY, RETIRED = "active", "decrypt_only", "retired"
KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,40}")
"""Short, since it stands in each sealed value; and never the base64 of a key, which has 44 characters."""


class KeyRingError(Exception):
    """The key ring cannot be used; the text names the file and the key's id, never key material."""


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """One key-encryption key."""

    id: str
    material: bytes


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What may be told about a key, a retired one included."""

    id: str
    state: str
    create_time: str


class KeyRing:
    """The keys by id; new values are sealed with the active one, the others only open. Retired ones are not held."""

    def __init__(self, keys: Mapping[str, Key], active: str, facts: Iterable[KeyFacts] = ()) -> None:
        self._keys = dict(keys)
        self.active = self._keys[active]
        self.facts = tuple(facts)

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def sealing_with(self, key_id: str) -> KeyRing:
        """The same keys with another active one. Raises KeyError."""
        return KeyRing(self._keys, key_id, self.facts)

    def key(self, key_id: str) -> Key:
        """Raises KeyError."""
        return self._keys[key_id]

    def check_value(self, key_id: str) -> bytes:
        """16 bytes that prove which key it is and reveal nothing of it."""
        return hmac.digest(self._keys[key_id].material, b"key check " + key_id.encode(), hashlib.sha256)[:16]

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """Reads a key file. Raises KeyRingError if it is missing, open to others, or not a sound ring."""
        text = read_private(path)
        try:
            entries = json.loads(text)["keys"]
            facts = [to_facts(path, entry) for entry in entries]
            keys = [to_key(path, entry) for entry in entries if entry["state"] != RETIRED]
            active = [each.id for each in facts if each.state == ACTIVE]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise KeyRingError(f"{path} is not a key file: {type(error).__name__}") from None
        for key_id, times in Counter(each.id for each in facts).items():
            if times > 1:
                raise KeyRingError(f"{path} holds the key id {key_id!r} twice")
        if len(active) != 1:
            named = f": {', '.join(active)}" if active else ""
            raise KeyRingError(f"{path} must hold exactly one active key; it holds {len(active)}{named}")
        return cls({key.id: key for key in keys}, active[0], facts)

    @classmethod
    def create(cls, path: Path) -> str:
        """Writes a new key file with one active key; its id. Raises KeyRingError rather than overwrite, and OSError.

        It returns when file and name are safe on disk; what cannot be written whole is not left behind.
        """
        entry = new_entry(ACTIVE)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise KeyRingError(f"{path} exists; a key file is never overwritten") from None
        try:
            with os.fdopen(file, "w") as writer:
                json.dump({"keys": [entry]}, writer, indent=2)
                writer.flush()
                os.fsync(writer.fileno())
            sync_folder(path.parent)
        except OSError:
            path.unlink()
            raise
        return entry["id"]


def new_entry(state: str) -> dict[str, str]:
    """A new key, as it stands in a key file."""
    now = datetime.now(UTC)
    return {
        "id": f"k-{now:%Y%m%d}-{secrets.token_hex(4)}",
        "state": state,
        "key": base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode(),
        "create_time": now.isoformat(timespec="seconds"),
    }


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder safe on disk: syncing a file does not do that. Raises OSError."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def read_private(path: Path) -> bytes:
    """What a key file holds. The file that is checked is the file that is read. Raises KeyRingError."""
    try:
        # Without O_NONBLOCK a pipe would block the start; a symbolic link is how secrets are mounted.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(file, "rb") as reader:
            check_private(path, os.fstat(file))
            return reader.read()
    except FileNotFoundError as error:
        told = "bring it back, or, for a service that has no data yet, run: keys new"
        raise KeyRingError(f"{path} cannot be read: {error.strerror}; {told}") from None
    except OSError as error:
        raise KeyRingError(f"{path} cannot be read: {error.strerror}") from None


def check_private(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeyRingError(f"{path} is not a regular file")
    if found.st_mode & 0o077:
        raise KeyRingError(f"{path} is open to other users (mode {found.st_mode & 0o777:04o}); run: chmod 600 {path}")
    if found.st_uid not in (0, os.geteuid()):
        raise KeyRingError(f"{path} belongs to another user")


def to_facts(path: Path, entry: Any) -> KeyFacts:
    key_id, state = entry["id"], entry["state"]
    if not isinstance(key_id, str) or not KEY_ID.fullmatch(key_id):
        raise KeyRingError(f"{path}: a key id must be 1 to 40 characters of A-Z a-z 0-9 . _ -")
    if state not in (ACTIVE, DECRYPT_ONLY, RETIRED):
        raise KeyRingError(
            f"{path}: key {key_id!r} has an unknown state; it is {ACTIVE!r}, {DECRYPT_ONLY!r} or {RETIRED!r}"
        )
    return KeyFacts(key_id, state, str(entry.get("create_time", "")))


def to_key(path: Path, entry: Any) -> Key:
    key_id = entry["id"]
    try:
        material = base64.b64decode(entry["key"], validate=True)
    except (binascii.Error, ValueError):
        raise KeyRingError(f"{path}: key {key_id!r} is not base64") from None
    if len(material) != KEY_BYTES:
        raise KeyRingError(f"{path}: key {key_id!r} has {len(material)} bytes, not {KEY_BYTES}")
    if len(set(material)) == 1:
        raise KeyRingError(f"{path}: key {key_id!r} is one byte repeated")
    return Key(key_id, material)
