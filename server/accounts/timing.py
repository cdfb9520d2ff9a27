"""When things are due: the arithmetic of refresh times and backoffs."""

from __future__ import annotations

import hashlib
import random
from datetime import datetime, timedelta

from server.accounts.grants import TokenSet

EARLIEST, SPREAD = 0.75, 0.10
"""A refresh is due at 75 to 85 % of the access token's life."""

REPLAY_MARGIN = timedelta(minutes=5)
"""How long before the access token ends a refresh of unknown outcome is tried once more."""

TOKEN_TIMEOUT = timedelta(seconds=20)
"""How long a token request may take; a lease must outlast it."""

IDENTITY_TIMEOUT = timedelta(seconds=10)
"""How long reading an identity or revoking a token may take."""

BACKOFF_BASE = timedelta(seconds=5)
BACKOFF_CAP = timedelta(hours=1)


def token_timeout(lease: timedelta) -> timedelta:
    """How long a token request may take under such a lease: a third of it at most."""
    return min(TOKEN_TIMEOUT, lease / 3)


def drain_time(lease: timedelta) -> timedelta:
    """How long what is under way may take: a code is exchanged, and then read whose it is."""
    return token_timeout(lease) + IDENTITY_TIMEOUT


def stable_share(grant_id: str) -> float:
    """A number in [0, 1) that is always the same for one grant and even over all of them."""
    return int.from_bytes(hashlib.blake2b(grant_id.encode(), digest_size=7).digest()) / 2**56


def refresh_due_time(grant_id: str, token_set: TokenSet, now: datetime, min_interval: timedelta) -> datetime | None:
    """When the scheduler must look at a grant next; None if its access token does not end.

    A token set without refresh token is looked at when its access token ends. `min_interval` alone spaces refreshes,
    so a platform that answers `expires_in: 0` costs one refresh per interval.
    """
    if token_set.expire_time is None:
        return None
    if token_set.refresh_token is None:
        return token_set.expire_time
    life = token_set.expire_time - now
    return now + max(life * (EARLIEST + SPREAD * stable_share(grant_id)), min_interval)


def replay_time(token_set: TokenSet, now: datetime, *, least: timedelta) -> datetime:
    """When a refresh token that may be spent is tried once more: shortly before the access token ends.

    Not before `least` has passed, and up to a quarter more: it is the last try, and what made the first one fail should
    be over.
    """
    soonest = now + least * (1 + random.random() / 4)  # noqa: S311 (spreads load; guards nothing)
    return soonest if token_set.expire_time is None else max(soonest, token_set.expire_time - REPLAY_MARGIN)


def backoff(attempts: int, retry_after: timedelta | None = None) -> timedelta:
    """Full jitter: a random span below 5 s doubled per failure, at most an hour; never less than Retry-After."""
    ceiling = min(BACKOFF_CAP, BACKOFF_BASE * (1 << min(attempts, 20)))
    span = ceiling * random.random()  # noqa: S311 (spreads load; guards nothing)
    return span if retry_after is None else retry_after + span
