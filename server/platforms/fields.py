"""The parts of a reply, read without trust: JSON, error texts, lifetimes, scopes, waiting times.

Nothing here raises: what cannot be read is as if it were missing.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard

LONGEST_LIFE = timedelta(days=3650)
SHORTEST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(hours=24)
LONGEST_TEXT = 200
LONGEST_SHOWN = 1024
"""Of a name or an address of a picture: a list of many accounts must still fit into a message."""
OPAQUE = re.compile(r"[A-Za-z0-9+/=_.~%-]{24,}")
"""What may be a secret in some spelling (base64, hex, percent-encoded)."""
TELLING = re.compile(r"[0-9A-Z]")
"""Error codes are of small letters alone."""


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that `body` is, or None."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def is_token(value: Any) -> TypeGuard[str]:
    """RFC 6749 appendix A.12: printable ASCII."""
    return isinstance(value, str) and value.isascii() and value.isprintable() and bool(value)


def redacted(text: str, secrets: Sequence[str]) -> str:
    """At most 200 printable characters of `text`, without the secrets that were sent: platforms echo them.

    Nor with anything else that may be one: they may be spelt differently, or be tokens that we were never told of.
    """
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "<redacted>")
    # Two looks, each from end to end: as one pattern it took half a minute for 16,000 small letters, on the event loop.
    text = OPAQUE.sub(lambda run: "<redacted>" if TELLING.search(run[0]) else run[0], text)
    return "".join(character if character.isprintable() else " " for character in text)[:LONGEST_TEXT]


def shown(value: Any) -> str:
    """A name for display: no control characters, and no lone surrogates, which no database or message can hold."""
    if not isinstance(value, str):
        return ""
    return "".join(each for each in value if unicodedata.category(each) not in ("Cc", "Cs"))[:LONGEST_SHOWN]


def lifetime(value: Any, default: timedelta | None) -> timedelta | None:
    """`expires_in`, in seconds: a number or its text. Zero and less have ended; what is no number is as if missing."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return default
    try:
        # An int stays one: it may lie beyond the range of floats.
        seconds = value if isinstance(value, int) else float(value)
    except ValueError:
        return default
    if isinstance(seconds, float) and math.isnan(seconds):
        return default
    return timedelta(seconds=max(0, min(seconds, LONGEST_LIFE.total_seconds())))


def granted_scopes(value: Any, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Separated by spaces or commas, or a list; missing means as asked (RFC 6749 section 5.1).

    What cannot be a scope (section 3.3) is left out.
    """
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        return asked
    scopes = (scope for text in value for scope in text.replace(",", " ").split())
    return tuple(dict.fromkeys(scope for scope in scopes if is_token(scope)))


def retry_after(value: str, now: datetime) -> timedelta | None:
    """RFC 9110 section 10.2.3, seconds or a date, between a second and a day; None for what is neither."""
    value = value.strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return max(SHORTEST_WAIT, timedelta(seconds=min(int(value[:12]), LONGEST_WAIT.total_seconds())))
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(SHORTEST_WAIT, min(date - now, LONGEST_WAIT))
