"""The platform's API without I/O: what may be sent to it on an account's behalf, and what of an answer is passed on.

Scheme, host and port come from the definition (or the registration) alone. URLs are built from parts, never joined.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import quote, urlsplit

from yarl import URL

from server.accounts.calls import AnswerWithheld, ApiAnswer, ApiCall
from server.accounts.errors import InvalidField
from server.accounts.flow import Endpoints
from server.accounts.grants import TokenSet
from server.accounts.rate_limits import RateLimit
from server.accounts.routes import SAFE
from server.platforms import fields
from server.platforms.definition import ApiRules
from server.platforms.messages import HttpReply

Now: TypeAlias = Callable[[], datetime]
"""Asked only where an answer tells a time that has to be reckoned from it."""

REQUEST_HEADERS: Final = frozenset(
    {"accept", "accept-language", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"}
)
RESPONSE_HEADERS: Final = frozenset(
    {"content-type", "content-language", "etag", "last-modified", "retry-after", "cache-control", "date", "location"}
)
# RFC 6750 section 2.3 and its relatives: a token in the query would be taken in place of ours.
TOKEN_PARAMETERS: Final = frozenset({"access_token", "oauth2_access_token", "oauth_token", "bearer_token"})
JSON_ESCAPED: Final = "+=/"
"""What a token can hold (RFC 6750 section 2.1) and some writer of JSON or other escapes: .NET's `+`, Gson `=`."""
PERCENT: Final = re.compile(r"%[0-9A-F]{2}")
UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]+")
"""What is the same percent-encoded (RFC 3986 section 2.3)."""
URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
SHORTEST_NEEDLE: Final = 8
"""A part of a token that is shorter than that says nothing."""


@dataclass(frozen=True, slots=True, repr=False)
class ApiRequest:
    """What goes out, but for the token and what every request has; its repr is left out."""

    method: str
    url: URL
    headers: Mapping[str, str]
    body: bytes


class Terms(NamedTuple):
    """On which terms the platform takes a request, as far as its definition knows."""

    route: str
    """What its rate limits count the request under: method and template."""
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an API lives."""

    scheme: str
    host: str
    port: int | None

    @classmethod
    def of(cls, url: str) -> Origin:
        """Raises ValueError for what is no absolute URL."""
        parts = urlsplit(url)
        if not parts.scheme or not parts.hostname:
            raise ValueError(f"{url!r} is no absolute URL")
        return cls(parts.scheme, parts.hostname, parts.port)


def closed_paths(endpoints: Endpoints) -> tuple[str, ...]:
    """How paths of OAuth endpoints begin, whatever they are called: a sandbox has them on one host with the API."""
    urls = (endpoints.authorization, endpoints.token, endpoints.revocation)
    return tuple(urlsplit(url).path.casefold().rstrip("/") + "/" for url in urls if url)


def build(rules: ApiRules, base: Origin, closed: tuple[str, ...], call: ApiCall) -> ApiRequest:
    """The request that a call asks for. Raises InvalidField for what this platform does not let callers send."""
    path = "/" + "/".join(call.segments)
    if f"{path.casefold()}/".startswith(closed):
        raise InvalidField("path", "is an OAuth endpoint of the platform, which nobody may call")
    if ":" in path and ":" not in rules.path_characters:
        raise InvalidField("path", "must not contain ':' at this platform")
    for name, _ in call.query:
        if name.lower() in TOKEN_PARAMETERS:
            raise InvalidField("query", f"{name} is not for callers: the service sends the token")
    for name, _ in call.headers:
        if name not in REQUEST_HEADERS and name not in rules.request_headers:
            allowed = ", ".join(sorted(REQUEST_HEADERS | rules.request_headers))
            raise InvalidField("headers", f"{name} is not for callers; they may set {allowed}")
    headers = {"accept": "application/json", **dict(call.headers)}
    if call.content_type:
        headers["content-type"] = call.content_type
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in call.query)
    url = URL.build(
        scheme=base.scheme,
        host=base.host,
        port=base.port,
        path=path.replace(":", "%3A"),  # the one character of paths that is sent percent-encoded
        query_string=query,
        encoded=True,
    )
    return ApiRequest(call.method, url, headers, call.body)


def terms_of(rules: ApiRules, call: ApiCall) -> Terms:
    """Those of the first matching route of the definition; HEAD has those of GET.

    A read that no route matches is counted by itself. Raises InvalidField for a request that changes something and that
    no route of the definition matches.
    """
    method = "GET" if call.method == "HEAD" else call.method
    for route, scopes in rules.scopes:
        if route.matches(method, call.segments):
            return Terms(f"{method} {route.template}", scopes)
    if call.method not in SAFE:
        raise InvalidField("path", f"no {call.method} of it is in the platform's definition, which says the scopes")
    return Terms(f"{method} /{'/'.join(call.segments)}", ())


def read_answer(rules: ApiRules, base: Origin, reply: HttpReply, token_set: TokenSet, now: Now) -> ApiAnswer:
    """What of an answer is passed on. Raises AnswerWithheld for one that holds a token."""
    headers = tuple(passed_on(rules, base, reply.headers))
    told = "\n".join([value for _, value in headers]).encode()
    for needle in needles(token_set):
        if needle in reply.body or needle in told:
            raise AnswerWithheld(reply.status, "token")
    return ApiAnswer(
        status=reply.status,
        headers=headers,
        body=reply.body,
        rate_limits=tuple(rate_limits(rules, reply.headers)),
        retry_after=fields.retry_after(asked, now()) if (asked := reply.headers.get("retry-after")) else None,
    )


def passed_on(rules: ApiRules, base: Origin, headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    of_platform = rules.told_headers
    for name, value in headers.items():
        is_told = (name in RESPONSE_HEADERS or name in of_platform) and value.isascii() and value.isprintable()
        if is_told and (name != "location" or stays(base, value)):
            yield name, value


def stays(base: Origin, location: str) -> bool:
    """Whether a Location leads to the API itself, by whichever reader."""
    if location.startswith("/"):
        return not location.startswith(("//", "/\\"))
    try:
        return "\\" not in location and "@" not in location and Origin.of(location) == base
    except ValueError:
        return False


# --- rate limits


def rate_limits(rules: ApiRules, headers: Mapping[str, str]) -> Iterator[RateLimit]:
    """The limits that an answer tells of, each with what is left; what cannot be read is as if it were missing."""
    for each in rules.rate_limits:
        if each.remaining not in headers:
            continue
        limit, remaining = whole_number(headers.get(each.limit, "")), whole_number(headers[each.remaining])
        if limit is not None and remaining is not None:
            reset_time = moment(whole_number(headers.get(each.reset, "")))
            yield RateLimit(limit, remaining, reset_time, each.of_app, each.limit)


def whole_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


def moment(seconds: int | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


# --- tokens in answers


def needles(token_set: TokenSet) -> list[bytes]:
    """What a token looks like in an answer that repeats it."""
    found = spellings(token_set.access_token.reveal())
    if token_set.refresh_token is not None:
        found += spellings(token_set.refresh_token.reveal())
    return [each for each in found if len(each) >= SHORTEST_NEEDLE]


def spellings(text: str) -> list[bytes]:
    """As it is, percent-encoded, escaped in JSON, in base64; each once, since every answer is searched for them."""
    plain = text.encode()
    found = [plain]
    if not UNRESERVED.fullmatch(text):
        encoded = quote(text, safe="")
        found += encoded.encode(), PERCENT.sub(lambda escape: escape[0].lower(), encoded).encode()
    for character in JSON_ESCAPED:
        if character in text:
            number = f"{ord(character):04x}"
            found += [text.replace(character, f"\\u{digits}").encode() for digits in (number, number.upper())]
    if "/" in text:
        found.append(text.replace("/", "\\/").encode())
    for part in in_base64(plain):
        found.append(part)
        if b"+" in part or b"/" in part:
            found.append(part.translate(URL_SAFE))
    return found


def in_base64(secret: bytes) -> list[bytes]:
    """What of base64 of any text with the secret in it depends on the secret alone."""
    return [
        b2a_base64(bytes(before) + secret, newline=False)[begins : (before + len(secret)) * 8 // 6]
        for before, begins in enumerate((0, 2, 3))
    ]
