"""The vault: seals secrets so that they open only where they were sealed.

AES-256-GCM with a new data key per value. The inner layer binds the value's place (its context) as associated data;
the data key is wrapped by the active key of the ring, which binds the place and the key's id. So a value moved to
another row does not open, and a rewrap never opens one.

Layout: version (1) | length of key id (1) | key id | wrap nonce (12) | wrapped data key (48) | nonce (12) | ciphertext.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from server.storage.keyring import KeyRing

VERSION: Final = 1
NONCE: Final = 12
WRAPPED: Final = 32 + 16
TAG: Final = 16

Context = tuple[str | int, ...]


class SealBroken(Exception):
    """A sealed value does not open here; why is not told."""

    def __init__(self) -> None:
        super().__init__("a sealed value does not open")


class Vault:
    """Seals and opens with the keys of a ring."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._ciphers: dict[str, AESGCM] = {}

    def seal(self, plaintext: bytes, context: Context) -> bytes:
        """`plaintext` sealed under a new data key, for `context` alone."""
        data_key, nonce = os.urandom(32), os.urandom(NONCE)
        bound = associated(context)
        inner = nonce + AESGCM(data_key).encrypt(nonce, plaintext, bound)
        return self._wrap(data_key, bound) + inner

    def open(self, sealed: bytes, context: Context) -> bytes:
        """Raises SealBroken."""
        key_id, wrapped, inner = split(sealed)
        bound = associated(context)
        data_key = self._unwrap(key_id, wrapped, bound)
        try:
            return AESGCM(data_key).decrypt(inner[:NONCE], inner[NONCE:], bound)
        except InvalidTag:
            raise SealBroken from None

    def rewrap(self, sealed: bytes, context: Context) -> bytes:
        """The same value with its data key wrapped by the active key. Raises SealBroken. The value is not opened."""
        key_id, wrapped, inner = split(sealed)
        bound = associated(context)
        return self._wrap(self._unwrap(key_id, wrapped, bound), bound) + inner

    def _wrap(self, data_key: bytes, bound: bytes) -> bytes:
        key_id = self._ring.active.id.encode()
        head = bytes((VERSION, len(key_id))) + key_id
        nonce = os.urandom(NONCE)
        return head + nonce + self._cipher(self._ring.active.id).encrypt(nonce, data_key, bound + head)

    def _unwrap(self, key_id: str, wrapped: bytes, bound: bytes) -> bytes:
        if key_id not in self._ring:
            raise SealBroken
        head = bytes((VERSION, len(key_id.encode()))) + key_id.encode()
        try:
            return self._cipher(key_id).decrypt(wrapped[:NONCE], wrapped[NONCE:], bound + head)
        except InvalidTag:
            raise SealBroken from None

    def _cipher(self, key_id: str) -> AESGCM:
        if key_id not in self._ciphers:
            self._ciphers[key_id] = AESGCM(self._ring.key(key_id).material)
        return self._ciphers[key_id]


def key_id_of(sealed: bytes) -> str:
    """The id of the key that a value is wrapped with. Raises SealBroken."""
    return split(sealed)[0]


def split(sealed: bytes) -> tuple[str, bytes, bytes]:
    """Key id, wrapped data key with its nonce, and the inner layer. Raises SealBroken for what is no seal."""
    head = 2 + sealed[1] if len(sealed) > 2 else 0
    if not head or sealed[0] != VERSION or len(sealed) < head + NONCE + WRAPPED + NONCE + TAG:
        raise SealBroken
    try:
        key_id = sealed[2:head].decode()
    except UnicodeDecodeError:
        raise SealBroken from None
    inner = head + NONCE + WRAPPED
    return key_id, sealed[head:inner], sealed[inner:]


def associated(context: Context) -> bytes:
    """The context as bytes that no other context gives: each part with its kind and length."""
    parts = [bytes((VERSION,))]
    for part in context:
        kind, text = (b"i", str(part)) if isinstance(part, int) else (b"s", part)
        encoded = text.encode()
        parts += [kind, len(encoded).to_bytes(4), encoded]
    return b"".join(parts)
