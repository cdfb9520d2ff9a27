"""The key ring: the key-encryption keys, from a key file or mounted secret."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KEY_BYTES = 32
ACTIVE, DECRYPT_ONLY = "active", "decrypt_only"


class KeyRingError(Exception):
    """The key ring cannot be used; the text names the file and the key's id, never key material."""


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """One key-encryption key."""

    id: str
    material: bytes


class KeyRing:
    """The keys by id; new values are sealed with the active one, the others only open."""

    def __init__(self, keys: Mapping[str, Key], active: str) -> None:
        self._keys = dict(keys)
        self.active = self._keys[active]

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def key(self, key_id: str) -> Key:
        """Raises KeyError."""
        return self._keys[key_id]

    def check_value(self, key_id: str) -> bytes:
        """16 bytes that prove which key it is and reveal nothing of it."""
        return hmac.digest(self._keys[key_id].material, b"key check " + key_id.encode(), hashlib.sha256)[:16]

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """Reads a key file. Raises KeyRingError if it is missing, open to others, or not a sound ring."""
        check_file(path)
        try:
            entries = json.loads(path.read_text())["keys"]
            keys = [to_key(path, entry) for entry in entries]
            active = [entry["id"] for entry in entries if entry["state"] == ACTIVE]
        except (ValueError, KeyError, TypeError) as error:
            raise KeyRingError(f"{path} is not a key file: {type(error).__name__}") from None
        if len({key.id for key in keys}) < len(keys):
            raise KeyRingError(f"{path} holds a key id twice")
        if len(active) != 1:
            raise KeyRingError(f"{path} must hold exactly one active key; it holds {len(active)}")
        return cls({key.id: key for key in keys}, active[0])

    @classmethod
    def create(cls, path: Path) -> str:
        """Writes a new key file with one active key; its id. Raises KeyRingError rather than overwrite."""
        now = datetime.now(UTC)
        key_id = f"k-{now:%Y%m%d}-{secrets.token_hex(4)}"
        entry = {
            "id": key_id,
            "state": ACTIVE,
            "key": base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode(),
            "create_time": now.isoformat(timespec="seconds"),
        }
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise KeyRingError(f"{path} exists; a key file is never overwritten") from None
        with os.fdopen(file, "w") as writer:
            json.dump({"keys": [entry]}, writer, indent=2)
            writer.flush()
            os.fsync(writer.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        return key_id


def check_file(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise KeyRingError(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise KeyRingError(f"{path} is not a regular file")
    if found.st_mode & 0o077:
        raise KeyRingError(f"{path} is open to other users (mode {found.st_mode & 0o777:04o}); run: chmod 600 {path}")
    if found.st_uid not in (0, os.geteuid()):
        raise KeyRingError(f"{path} belongs to another user")


def to_key(path: Path, entry: Any) -> Key:
    key_id, state = str(entry["id"]), entry["state"]
    try:
        material = base64.b64decode(entry["key"], validate=True)
    except (binascii.Error, ValueError):
        raise KeyRingError(f"{path}: key {key_id!r} is not base64") from None
    if len(material) != KEY_BYTES:
        raise KeyRingError(f"{path}: key {key_id!r} has {len(material)} bytes, not {KEY_BYTES}")
    if len(set(material)) == 1:
        raise KeyRingError(f"{path}: key {key_id!r} is one byte repeated")
    if state not in (ACTIVE, DECRYPT_ONLY):
        raise KeyRingError(f"{path}: key {key_id!r} has the unknown state {state!r}")
    return Key(key_id, material)
