"""The search finds what is planted: a search that finds nothing proves nothing by itself."""

import base64
import html
import json
import secrets
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.security.canary import Canaries

PLANTS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda secret: b"token=" + secret,
    "base64": base64.b64encode,
    "base64 after one byte": lambda secret: base64.b64encode(b"a" + secret + b"zz"),
    "base64 after two bytes": lambda secret: base64.b64encode(b"ab" + secret + b"z"),
    "base64 in a Basic header": lambda secret: base64.b64encode(b"client:" + secret),
    "base64url": lambda secret: base64.urlsafe_b64encode(b"x" + secret),
    "hex": lambda secret: secret.hex().encode(),
    "HEX": lambda secret: secret.hex().upper().encode(),
    "percent": lambda secret: quote(secret, safe="").encode(),
    "JSON": lambda secret: json.dumps({"token": secret.decode("latin-1")}).encode(),
    "HTML": lambda secret: html.escape(secret.decode("latin-1")).encode(),
    "repr": lambda secret: repr(secret).encode(),
    "UTF-16": lambda secret: secret.decode("latin-1").encode("utf-16-le"),
    "reversed": lambda secret: secret[::-1],
    "the first half": lambda secret: secret[: len(secret) // 2],
    "the second half": lambda secret: secret[len(secret) // 2 :],
    "cut in two": lambda secret: secret[: len(secret) // 2] + b"\n" + secret[len(secret) // 2 :],
}
SECRETS = {
    "a token": secrets.token_urlsafe(32).encode(),
    "a marked token": b"sbx-refresh-canary-" + secrets.token_urlsafe(24).encode(),
    "a key": secrets.token_bytes(32),
    "odd characters": b'p+/ "&%<>\\' + secrets.token_hex(12).encode(),
}
NOISE = secrets.token_bytes(50_000)


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("kind", SECRETS)
def test_a_planted_secret_is_found_in_each_spelling(kind: str, plant: str) -> None:
    canaries = Canaries()
    canaries.add(kind, SECRETS[kind])
    found = canaries.find("log", NOISE + PLANTS[plant](SECRETS[kind]) + NOISE)
    assert {(hit.output, hit.kind) for hit in found} == {("log", kind)}


def test_nothing_is_found_where_there_is_nothing_or_where_it_may_be() -> None:
    canaries = Canaries()
    canaries.add("token", *(secrets.token_bytes(32) for _ in range(50)))
    canaries.add("state", SECRETS["a token"])
    assert canaries.find("log", NOISE) == set()
    assert canaries.find("reply", NOISE + SECRETS["a token"], allowed=["state"]) == set()
    assert canaries.find("reply", NOISE + SECRETS["a token"])


def test_what_is_too_short_to_be_searched_for_is_refused() -> None:
    with pytest.raises(AssertionError, match="too short"):
        Canaries().add("token", "short")
