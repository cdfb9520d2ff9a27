"""The kinds of values in settings: spans, addresses, URLs, key hashes."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator

from server.accounts.routes import NotARoute, Route

SPAN = re.compile(r"([0-9]{1,9})(s|m|h|d)")
ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")
KEY_HASH = re.compile(r"[0-9a-f]{64}")
# A SPIFFE id (spiffe://trust-domain/path) or another URI with a host, or a host name: never a pattern.
SAN = re.compile(r"dns:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|[a-z][a-z0-9+.-]*://[A-Za-z0-9._~:@!$&'()+,;=%/-]+")
NOTHING = hashlib.sha256(b"").hexdigest()
ALL = "*"
"""In place of all profiles or all platforms; a list that is missing or empty never stands for them."""
LONGEST_SPAN = timedelta(days=3650)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def to_span(value: Any) -> Any:
    if isinstance(value, timedelta):  # a default
        return value
    found = SPAN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a span is text such as "90s", "5m", "2h" or "30d"')
    return timedelta(seconds=int(found[1]) * SECONDS[found[2]])


def positive(span: timedelta) -> timedelta:
    if span <= timedelta():
        raise ValueError("must be longer than nothing")
    if span > LONGEST_SPAN:
        raise ValueError("must be at most ten years")
    return span


Span = Annotated[timedelta, BeforeValidator(to_span), AfterValidator(positive)]


def is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`; IPv6 hosts stand in brackets. Raises ValueError."""
    found = ADDRESS.fullmatch(text)
    if found is None or int(found[3]) > 65535:
        raise ValueError('an address is text such as "127.0.0.1:50051" or "[::1]:50051"')
    return found[1] or found[2], int(found[3])


def split_url(text: str) -> SplitResult | None:
    """The parts of an absolute http or https URL; None for what is none, or what browsers may read differently.

    So neither userinfo nor a fragment (RFC 6749 section 3.1.2), and no backslash, which browsers take for a slash.
    """
    if not text.isascii() or not text.isprintable() or any(odd in text for odd in " \\#"):
        return None
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc else None


def is_safe(parts: SplitResult) -> bool:
    """Whether nobody between can read what is sent: https, or it stays on this machine."""
    return parts.scheme == "https" or is_loopback(parts.hostname)


def listen_address(text: str) -> str:
    split_address(text)
    return text


def profile_prefix(text: str) -> str:
    if not text:
        raise ValueError(f'an empty prefix would be all profiles; all are "{ALL}"')
    return text


def key_hash(text: str) -> str:
    if not KEY_HASH.fullmatch(text):
        raise ValueError("64 lower-case hex digits: the SHA-256 of a key")
    if text == NOTHING:
        raise ValueError("the SHA-256 of nothing: the key was lost before it was hashed")
    return text


def to_switch(value: Any) -> Any:
    """Only true and false, which are text in the environment: a 1 was meant for another key."""
    found = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ValueError("true or false")
    return found


def subject_alternative_name(text: str) -> str:
    if not SAN.fullmatch(text):
        raise ValueError('a name in a certificate: "spiffe://example.com/publisher" or "dns:publisher.example.com"')
    return text


def split_route(text: str) -> tuple[str, Route]:
    """Platform and route of `twitter GET /2/users/{id}`. Raises ValueError."""
    platform, _, route = text.partition(" ")
    try:
        return platform, Route.of(route)
    except NotARoute as wrong:
        raise ValueError(f'a route is text such as "twitter GET /2/users/{{id}}"; {wrong}') from None


def route_line(text: str) -> str:
    split_route(text)
    return text


Address = Annotated[str, AfterValidator(listen_address)]
AddressOrOff = Annotated[Address | None, BeforeValidator(lambda value: None if value == "" else value)]
KeyHash = Annotated[str, AfterValidator(key_hash)]
ProfilePrefix = Annotated[str, AfterValidator(profile_prefix)]
RouteLine = Annotated[str, AfterValidator(route_line)]
San = Annotated[str, AfterValidator(subject_alternative_name)]
Switch = Annotated[bool, BeforeValidator(to_switch)]
