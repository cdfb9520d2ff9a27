"""Makes and reads page tokens: opaque, tamper-evident, good for three days, the same caller and the same filter."""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from server.accounts.callers import Caller
from server.accounts.errors import InvalidField
from server.accounts.events import EventFilter
from server.accounts.model import Status

NONCE_BYTES = 12
MOST_CHARACTERS = 256
LIFETIME = 3 * 86400
"""Seconds: longer than it takes to read all pages of whatever there is."""


class Listing(NamedTuple):
    """What a list was asked for; its pages belong together. None and empty mean all."""

    profile_id: str | None
    platform: str | None
    statuses: frozenset[Status]


class Seal:
    """Seals a place as a token (AES-256-GCM), bound to who asks and for what."""

    def __init__(self, key: bytes) -> None:
        """`key` is 32 random bytes, the same for all servers of one database."""
        if len(key) != 32:
            raise ValueError("the page token key must be 32 bytes")
        self._cipher = AESGCM(key)

    def seal(self, place: str, bound: bytes) -> str:
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, place.encode(), bound)
        return urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, token: str, bound: bytes) -> str:
        """Raises ValueError for a token that is none, or is bound to something else."""
        sealed = decoded(token)
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound).decode()
        except InvalidTag:
            raise ValueError("not sealed so") from None


class PageTokens:
    """Seals the place after which the next page begins, and until when; `clock` is in seconds since 1970."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._seal = Seal(key)
        self._clock = clock

    def write(self, caller: Caller, listing: Listing | EventFilter, last_id: str) -> str:
        ends = int(self._clock()) + LIFETIME
        return self._seal.seal(f"{ends} {last_id}", bound_to(caller, listing))

    def read(self, caller: Caller, listing: Listing | EventFilter, token: str) -> str:
        """The place to go on after; empty for no token. Raises InvalidField for one that has ended or is of another
        list."""
        if not token:
            return ""
        try:
            ends, _, place = self._seal.open(token, bound_to(caller, listing)).partition(" ")
            if int(ends) <= self._clock():
                raise InvalidField("page_token", "has ended; begin with the first page")
        except ValueError:
            raise InvalidField("page_token", "must be the next_page_token of this caller and this filter") from None
        return place


def decoded(token: str) -> bytes:
    """The bytes of base64url without padding. Raises ValueError, also for the spellings that Python lets pass."""
    if len(token) > MOST_CHARACTERS:
        raise ValueError("too long")
    sealed = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    if urlsafe_b64encode(sealed).rstrip(b"=") != token.encode("ascii"):
        raise ValueError("not the one spelling of these bytes")
    return sealed


def bound_to(caller: Caller, listing: Listing | EventFilter) -> bytes:
    return length_prefixed([caller.name, *words_of(listing)])


def words_of(listing: Listing | EventFilter) -> list[str]:
    if isinstance(listing, Listing):
        statuses = sorted(str(status.value) for status in listing.statuses)
        return [listing.profile_id or "", listing.platform or "", *statuses]
    times = [time.isoformat() if time else "" for time in (listing.start_time, listing.end_time)]
    # The first word is no profile id, so that neither kind of list takes the tokens of the other.
    return [
        "audit events",
        listing.account_id or "",
        listing.profile_id or "",
        listing.caller or "",
        listing.kind or "",
        " ".join(sorted(listing.kinds or ())),
        *times,
    ]


def length_prefixed(texts: Iterable[str]) -> bytes:
    """Joins texts so that no two lists of texts give the same bytes."""
    parts = [text.encode() for text in texts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
