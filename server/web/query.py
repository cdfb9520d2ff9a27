"""Reading the callback's query: strict, since whoever calls it is anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from server.accounts.flow import AuthorizationResponse
from server.accounts.model import Secret

LONGEST_QUERY: Final = 8 * 1024
LONGEST: Final[Mapping[str, int]] = {"state": 500, "code": 4096, "iss": 2048, "error": 256}
"""X promises states of up to 500 characters; the rest are ample."""

NOT_A_QUERY: Final = re.compile(r"[^!-~]|#|%(?![0-9A-Fa-f]{2})")
"""What no query holds (RFC 3986 section 3.4): `parse_qsl` would let a broken escape pass as it stands."""


class BadQuery(Exception):
    """The query is not an authorization response that we take."""


def read(raw: bytes) -> AuthorizationResponse:
    """RFC 6749 section 4.1.2, RFC 9207. Raises BadQuery; parameters we do not know are left alone, unless repeated."""
    if len(raw) > LONGEST_QUERY:
        raise BadQuery("too long")
    try:
        text = raw.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError as error:  # also UnicodeDecodeError
        raise BadQuery("not a query") from error
    if NOT_A_QUERY.search(text):
        raise BadQuery("not a query")
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise BadQuery("a repeated parameter")
        if "\0" in name + value or name.endswith("[]") or len(value) > LONGEST.get(name, LONGEST_QUERY):
            raise BadQuery("a malformed parameter")
        found[name] = value
    if not found.get("state") or "response" in found:  # JARM (a signed `response`) is not spoken here
        raise BadQuery("no state")
    code = found.get("code")
    return AuthorizationResponse(
        state=Secret(found["state"]),
        code=Secret(code) if code else None,
        iss=found.get("iss", ""),
        error=found.get("error", ""),
    )
