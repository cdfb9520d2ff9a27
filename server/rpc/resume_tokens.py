"""Makes and reads resume tokens: sealed like page tokens, good for the same caller and the same filter only."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from server.accounts.callers import Caller
from server.accounts.changes import Mark
from server.accounts.errors import InvalidField, ResumeTokenTooOld
from server.accounts.news import WatchPlace
from server.rpc.page_tokens import Seal, length_prefixed

LISTED: Final = "-"
SHARED: Final = 256


class Watched(NamedTuple):
    """What a watch was asked for; None means all."""

    profile_id: str | None
    platform: str | None


class ResumeTokens:
    """Seals the place where a watch goes on, with what its caller might see then."""

    def __init__(self, key: bytes) -> None:
        self._seal = Seal(key)
        # Those of one caller who watch the same share the token of a change.
        self._sealed = lru_cache(SHARED)(self._seal.seal)

    def writer(self, caller: Caller, watched: Watched) -> Callable[[WatchPlace], str]:
        """Writes the tokens of one watch."""
        bound, seen = bound_to(caller, watched), sight(caller)

        def write(place: WatchPlace) -> str:
            after = LISTED if place.after is None else place.after
            return self._sealed(f"{place.mark.number} {place.mark.event_id} {seen} {after}", bound)

        return write

    def read(self, caller: Caller, watched: Watched, token: str) -> WatchPlace | None:
        """None for no token. Raises InvalidField; ResumeTokenTooOld if the caller may see others than then."""
        if not token:
            return None
        try:
            number, event_id, seen, after = self._seal.open(token, bound_to(caller, watched)).split(" ")
        except ValueError:
            raise InvalidField("resume_token", "must be a resume_token of this caller and this filter") from None
        if seen != sight(caller):
            raise ResumeTokenTooOld("this caller may see other accounts than then; watch again without a resume token")
        return WatchPlace(Mark(int(number), event_id), None if after == LISTED else after)


def bound_to(caller: Caller, watched: Watched) -> bytes:
    # The first word is no profile id, so that no list takes these tokens.
    return length_prefixed([caller.name, "watched accounts", watched.profile_id or "", watched.platform or ""])


def sight(caller: Caller) -> str:
    """What the caller may see, in few characters."""
    platforms = ["all"] if caller.platforms is None else ["some", *sorted(caller.platforms)]
    words = length_prefixed([*sorted(caller.profiles), "of", *platforms])
    return blake2b(words, digest_size=6).hexdigest()
