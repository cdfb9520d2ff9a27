"""The vault: seals secrets so that they open only where they were sealed.

AES-256-GCM with a new data key per value. The inner layer binds the value's place (its context) as associated data;
the data key is wrapped by the active key of the ring, which binds the place and the key's id. So a value moved to
another row does not open, and a rewrap never opens one.

Layout: version (1) | length of key id (1) | key id | wrap nonce (12) | wrapped data key (48) | nonce (12) | ciphertext.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from datetime import timedelta
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from server.storage.keyring import KeyRing

VERSION: Final = 1
NONCE: Final = 12
DATA_KEY: Final = 32
WRAPPED: Final = DATA_KEY + 16
TAG: Final = 16

BROKEN_WAIT: Final = timedelta(hours=1)
"""How long work whose sealed value does not open is left alone: it must not hold up the others."""

Context = tuple[str | int, ...]


class SealBroken(Exception):
    """A sealed value does not open here; why is not told."""

    def __init__(self) -> None:
        super().__init__("a sealed value does not open")


class Vault:
    """Seals and opens with the keys of a ring, from whichever thread."""

    def __init__(self, ring: KeyRing) -> None:
        self.broken = 0
        """How often a value did not open where it should have."""
        self._wraps: Counter[str] = Counter()
        self._counting = threading.Lock()
        self.use(ring)

    @property
    def ring(self) -> KeyRing:
        return self._held[0]

    def use(self, ring: KeyRing) -> None:
        """From now on the keys of another ring; what is under way ends with those it began with."""
        ciphers = {key_id: AESGCM(ring.key(key_id).material) for key_id in ring}
        self._held = (ring, ciphers)

    def take_wraps(self) -> Counter[str]:
        """How many data keys each key has wrapped since this was last asked."""
        with self._counting:
            taken, self._wraps = self._wraps, Counter()
        return taken

    def give_back_wraps(self, wraps: Counter[str]) -> None:
        """They could not be noted."""
        with self._counting:
            self._wraps += wraps

    def seal(self, plaintext: bytes, context: Context) -> bytes:
        """`plaintext` sealed under a new data key, for `context` alone."""
        # Drawn at once: each draw lets other threads run, which on a busy server costs more than all the rest.
        drawn = os.urandom(DATA_KEY + NONCE + NONCE)
        data_key, nonce, wrap_nonce = drawn[:DATA_KEY], drawn[DATA_KEY:-NONCE], drawn[-NONCE:]
        bound = associated(context)
        inner = nonce + AESGCM(data_key).encrypt(nonce, plaintext, bound)
        return self._wrap(data_key, bound, wrap_nonce) + inner

    def open(self, sealed: bytes, context: Context) -> bytes:
        """Raises SealBroken."""
        try:
            key_id, wrapped, inner = split(sealed)
            bound = associated(context)
            data_key = self._unwrap(key_id, wrapped, bound)
            return AESGCM(data_key).decrypt(inner[:NONCE], inner[NONCE:], bound)
        except (SealBroken, InvalidTag):
            self.broken += 1
            raise SealBroken from None

    def rewrap(self, sealed: bytes, context: Context) -> bytes:
        """The same value with its data key wrapped by the active key. Raises SealBroken. The value is not opened."""
        key_id, wrapped, inner = split(sealed)
        bound = associated(context)
        return self._wrap(self._unwrap(key_id, wrapped, bound), bound, os.urandom(NONCE)) + inner

    def _wrap(self, data_key: bytes, bound: bytes, nonce: bytes) -> bytes:
        ring, ciphers = self._held
        key_id = ring.active.id
        head = head_of(key_id)
        with self._counting:
            self._wraps[key_id] += 1
        return head + nonce + ciphers[key_id].encrypt(nonce, data_key, bound + head)

    def _unwrap(self, key_id: str, wrapped: bytes, bound: bytes) -> bytes:
        cipher = self._held[1].get(key_id)
        if cipher is None:
            raise SealBroken
        try:
            return cipher.decrypt(wrapped[:NONCE], wrapped[NONCE:], bound + head_of(key_id))
        except InvalidTag:
            raise SealBroken from None


class NoVault(Vault):
    """For work that seals and opens nothing, and so needs no keys; where it does all the same it fails."""

    def __init__(self) -> None:
        self.broken = 0

    def _wrap(self, *_: object) -> bytes:
        raise SealBroken

    def _unwrap(self, *_: object) -> bytes:
        raise SealBroken


def head_of(key_id: str) -> bytes:
    """What a value begins with that is wrapped with this key, and no other."""
    encoded = key_id.encode()
    return bytes((VERSION, len(encoded))) + encoded


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
