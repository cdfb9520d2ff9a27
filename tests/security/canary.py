"""The search for secrets in whatever a process leaves behind, in every usual spelling (rows C1, C3, C5, C6)."""

import base64
import html
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import quote

SHORTEST = 8
"""Of fewer bytes a needle would be found by chance."""


class Hit(NamedTuple):
    """Where a secret was found, of what kind it is, and how it was spelt."""

    output: str
    kind: str
    spelling: str


class Canaries:
    """The secrets of a run by kind, and the search for each of them, whole or in part."""

    def __init__(self) -> None:
        self._secrets: defaultdict[str, set[bytes]] = defaultdict(set)
        self._by_start: defaultdict[bytes, list[tuple[bytes, str, str]]] = defaultdict(list)

    def add(self, kind: str, *secrets: str | bytes) -> None:
        for secret in secrets:
            text = secret.encode() if isinstance(secret, str) else secret
            assert len(text) >= 2 * SHORTEST + 2, f"{kind}: too short to search for"
            if text in self._secrets[kind]:
                continue
            self._secrets[kind].add(text)
            for spelling, needle in needles(text):
                self._by_start[needle[:SHORTEST]].append((needle, kind, spelling))

    def count(self, kind: str) -> int:
        return len(self._secrets[kind])

    def some(self, kind: str) -> bytes:
        return next(iter(self._secrets[kind]))

    def find(self, output: str, content: bytes, allowed: Iterable[str] = ()) -> set[Hit]:
        """The hits in one output, which may show the `allowed` kinds. One walk, however many secrets there are."""
        begins = self._by_start
        places = [at for at in range(len(content) - SHORTEST + 1) if content[at : at + SHORTEST] in begins]
        return {
            Hit(output, kind, spelling)
            for at in places
            for needle, kind, spelling in begins[content[at : at + SHORTEST]]
            if kind not in allowed and content.startswith(needle, at)
        }


def needles(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """Each half in each spelling: who finds the whole finds both, and one that is cut in two is found as well."""
    middle = len(secret) // 2
    seen = set()
    for half in (secret[:middle], secret[middle:]):
        for spelling, needle in spellings(half).items():
            if needle not in seen:
                seen.add(needle)
                yield spelling, needle


def spellings(text: bytes) -> dict[str, bytes]:
    """A secret as it may look in an output."""
    plain = text.decode("latin-1")
    found = {
        "raw": text,
        "hex": text.hex().encode(),
        "HEX": text.hex().upper().encode(),
        "percent": quote(text, safe="").encode(),
        "percent, every byte": "".join(f"%{byte:02X}" for byte in text).encode(),
        "JSON": json.dumps(plain)[1:-1].encode(),
        "HTML": html.escape(plain).encode("utf-8"),
        "Python": repr(text)[2:-1].encode(),
        "UTF-16": plain.encode("utf-16-le"),
        "reversed": text[::-1],
    }
    for offset in range(3):
        found[f"base64 at {offset}"] = inner_base64(text, offset)
        found[f"base64url at {offset}"] = inner_base64(text, offset).translate(bytes.maketrans(b"+/", b"-_"))
    return found


def inner_base64(text: bytes, offset: int) -> bytes:
    """The characters that stand for `text` alone, where so many bytes come before it in its group of three."""
    encoded = base64.b64encode(bytes(offset) + text).rstrip(b"=")
    first = (0, 2, 3)[offset]
    whole = (offset + len(text)) * 8 // 6
    return encoded[first:whole]
