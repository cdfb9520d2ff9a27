"""Routes: which requests a caller may make on accounts' behalf, as templates of a method and a path.

A path is made of segments that mean the same to every parser there is: nothing in it is encoded, empty or a dot
segment. So what was matched here is what the platform gets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
SAFE: Final = frozenset({"GET", "HEAD"})
"""Methods that change nothing, so that they may be repeated (RFC 9110 section 9.2.1)."""
LONGEST_PATH: Final = 1024
# The unreserved characters of RFC 3986, and the colon of LinkedIn's URNs, which `platforms.api` sends encoded. In no
# place can they end a segment, a host or an encoding.
SEGMENT: Final = re.compile(r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~:-]+")
PATH: Final = re.compile(f"(?:/{SEGMENT.pattern})+")
VARIABLE: Final = re.compile(r"\{[a-z_]{1,40}\}\Z")
# Such a segment leads to an OAuth endpoint: /2/oauth2/token, /oauth/v2/accessToken, /oauth/revoke.
OAUTH: Final = re.compile(r"/oauth[0-9.]*(?:/|\Z)", re.IGNORECASE)


class NotARoute(ValueError):
    """A text that is no route; says why."""


@dataclass(frozen=True, slots=True)
class Route:
    """Requests of one method whose path matches a template such as `/2/users/{id}/tweets`."""

    method: str
    template: str
    _segments: tuple[str, ...] = field(compare=False, repr=False)

    @classmethod
    def of(cls, text: str) -> Route:
        """Reads `GET /2/users/{id}`. Raises NotARoute."""
        method, _, template = text.partition(" ")
        if method not in METHODS:
            raise NotARoute(f"{method!r} is none of {', '.join(METHODS)}")
        first, *segments = template.split("/")
        if first or not segments or not all(VARIABLE.match(each) or SEGMENT.fullmatch(each) for each in segments):
            raise NotARoute(f"{template!r} is no path such as /2/users/{{id}}/tweets")
        if OAUTH.search(template):
            raise NotARoute(f"{template!r} is an OAuth endpoint, which nobody may call")
        return cls(method, template, tuple("" if VARIABLE.match(each) else each for each in segments))

    def meets(self, other: Route) -> bool:
        """Whether a request can match both."""
        return (
            self.method == other.method
            and len(self._segments) == len(other._segments)
            and all(mine == its or "" in (mine, its) for mine, its in zip(self._segments, other._segments, strict=True))
        )

    def matches(self, method: str, segments: tuple[str, ...]) -> bool:
        if method != self.method or len(segments) != len(self._segments):
            return False
        return segments == self._segments or all(map(is_met, self._segments, segments))


def segments_of(path: str) -> tuple[str, ...] | None:
    """The segments of a path, or None if it is not one that may be sent."""
    if len(path) > LONGEST_PATH or not PATH.fullmatch(path) or OAUTH.search(path):
        return None
    return tuple(path[1:].split("/"))


def is_met(mine: str, its: str) -> bool:
    """Whether a segment of a template stands for one of a path."""
    return mine in ("", its)
