"""What is fuzzed: the parsers that face the outside, each with what must hold of whatever it is given.

A target takes bytes, and raises only where a promise is broken. `make fuzz` runs each under a fuzzer that follows its
coverage; `test_fuzz.py` replays what was found, beside hypothesis' own inventions.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

from server.accounts.callers import Caller
from server.accounts.errors import InvalidField, PlatformError
from server.accounts.grants import TokenSet
from server.accounts.model import Secret, Status
from server.platforms import fields, oauth
from server.platforms.messages import HttpReply
from server.platforms.registration import Registration
from server.rpc.page_tokens import Listing, PageTokens
from server.storage.keyring import Key, KeyRing
from server.storage.sealed import key_id_in
from server.storage.token_sets import pack, unpack
from server.storage.vault import SealBroken, Vault, key_id_of
from server.web import query
from tests.platforms.definitions import DEFINITIONS

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@dataclass(frozen=True)
class Target:
    """`seeds` are sound inputs, from which a fuzzer goes on."""

    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


# --- the callback's query


def callback_query(data: bytes) -> None:
    try:
        found = query.read(data)
    except query.BadQuery:
        return
    state, code = found.state.reveal(), found.code.reveal() if found.code else ""
    texts = {"state": state, "code": code, "iss": found.iss, "error": found.error}
    assert state and len(data) <= query.LONGEST_QUERY
    for name, text in texts.items():
        assert len(text) <= query.LONGEST[name] and "\0" not in text
        assert len(text) <= len(data)
    again = query.read(urlencode({name: text for name, text in texts.items() if text}).encode())
    assert (again.state.reveal(), again.code and again.code.reveal()) == (state, code or None)
    assert (again.iss, again.error) == (found.iss, found.error)


# --- token, revocation and identity replies

OURS = Registration("client", Secret("client-secret"))
SPENT = TokenSet(Secret("old-access"), Secret("old-refresh"), NOW, ("a", "b"))
SECRETS = oauth.secrets_sent(OURS, SPENT.refresh_token, SPENT.access_token)
STATUSES = (200, 201, 302, 400, 401, 403, 408, 425, 429, 500, 503)


def token_response(data: bytes) -> None:
    """The first byte chooses platform and status, the rest is `Retry-After`, a line feed, and the body."""
    choice, (retry, _, body) = data[0] if data else 0, data[1:].partition(b"\n")
    definition = DEFINITIONS[choice % len(DEFINITIONS)]
    reply = HttpReply(STATUSES[choice % len(STATUSES)], body, {"retry-after": retry.decode("latin-1")})
    for read in (
        lambda: oauth.read_refresh(definition, OURS, reply, SPENT, NOW),
        lambda: oauth.read_exchange(definition, reply, SPENT.scopes, NOW, SECRETS),
    ):
        try:
            granted = read()
        except PlatformError as error:
            check_told(error)
        else:
            check_granted(granted)
    for ask in (
        lambda: oauth.read_revoke(definition, OURS, reply, Secret("old-refresh"), NOW),
        lambda: [check_identity(*each) for each in identities(definition, reply)],
    ):
        try:
            ask()
        except PlatformError as error:
            check_told(error)


def check_told(error: PlatformError) -> None:
    assert error.text.isprintable() and not any(secret in error.text + error.error for secret in SECRETS)
    wait = getattr(error, "retry_after", None)
    assert wait is None or fields.SHORTEST_WAIT <= wait <= fields.LONGEST_WAIT


def check_granted(granted: TokenSet) -> None:
    access_token, refresh_token = granted.access_token.reveal(), granted.refresh_token
    assert fields.is_token(access_token) and (refresh_token is None or fields.is_token(refresh_token.reveal()))
    assert granted.expire_time is None or NOW <= granted.expire_time <= NOW + timedelta(days=3650)
    assert all(fields.is_token(scope) and " " not in scope for scope in granted.scopes)
    assert unpack(pack(granted)) == granted


def identities(definition: oauth.OAuth2Platform, reply: HttpReply) -> Iterator[tuple[str, ...]]:
    for found in oauth.read_identity(definition, reply, NOW):
        yield found.platform_user_id, found.handle, found.display_name, found.avatar_url


def check_identity(user_id: str, *shown: str) -> None:
    assert fields.is_token(user_id)
    for text in shown:
        text.encode()  # what no database holds would raise
        assert "\0" not in text and "\n" not in text


GRANTED = {"access_token": "new", "refresh_token": "newer", "token_type": "bearer", "expires_in": 7200, "scope": "a b"}
REFUSED = {"error": "invalid_grant", "error_description": "old-refresh of client-secret"}
IDENTITIES = ({"data": {"id": "1", "username": "ada", "name": "Ada"}}, {"sub": "1", "name": "Ada", "picture": "https"})

# --- sealed values

RING = KeyRing({name: Key(name, name.encode() * 8) for name in ("key1", "key2")}, "key1")
VAULT = Vault(RING)
CONTEXT = ("grants", "token_set", "grant-1", "profile", "twitter", 7)
SEALED = (
    "01046b657931e609e25021c8804d8897fd4b5393a2aab0f69fda46d197782e3f8cc005f185395df76325e18761a05be6ff3809a6b01b99607677"
    "6c15a85e359d504ff61a485c5451255015faad4cc717f4df1aef21070bf9bd17aadfd8bd230de176c5a264",
    "01046b657932a8277312a61b4e9ad1e7897e6f20ec908364bd8a52fdcf60119e5587b97fcb5cddd7a0000f518d9789b334be7a495cc84cb9a138"
    "153ebab84529e3e249952affde5ddef77410d29250d4a6c854adf5d6aa6e057ac40e9302201717c2c30c1f",
)
"""The same token, sealed with either key of the ring."""


def sealed_blob(data: bytes) -> None:
    if data.hex() in SEALED:
        assert VAULT.open(data, CONTEXT) == VAULT.open(VAULT.rewrap(data, CONTEXT), CONTEXT) == b"a token"
        return
    check_shut(data)
    with suppress(SealBroken):
        check_shut(VAULT.rewrap(data, CONTEXT))  # a rewrap does not look at the value within
    try:
        key_id = key_id_of(data)
    except SealBroken:
        pass
    else:
        assert key_id_in(data) == key_id


def check_shut(data: bytes) -> None:
    try:
        VAULT.open(data, CONTEXT)
    except SealBroken:
        return
    raise AssertionError("what nobody sealed opens")


# --- page tokens

PAGE_TOKENS = PageTokens(b"k" * 32)
CALLER = Caller("web")
LISTING = Listing("acme:ada", "twitter", frozenset[Status]())
PAGE_TOKEN = "HcEF0qCPUqY7xn_QikniVeWPsjslLtj5Pkf-VfiXxXZwr8Cq00DZKELpo2z9qjbwgRNCAM1Z1vPwkODCBKKH5w"


def page_token(data: bytes) -> None:
    text = data.decode("utf-8", "ignore")  # as protobuf hands it on: always text
    try:
        after = PAGE_TOKENS.read(CALLER, LISTING, text)
    except InvalidField as error:
        assert error.field == "page_token"
        return
    assert after == ("01890a5d-ac96-774b-bcce-b302099a8057" if text else "")
    assert text in ("", PAGE_TOKEN)


TARGETS = {
    "callback_query": Target(
        callback_query,
        (
            b"state=s&code=c",
            b"state=a%2Bb+c&code=c&iss=https%3A%2F%2Fx.test&error=access_denied&error_description=no",
            b"state=" + b"a" * 500 + b"&code=" + b"c" * 4096,
            quote("state=\u202e&code=\x00&state[]=b").encode(),
        ),
    ),
    "token_response": Target(
        token_response,
        (
            *(
                bytes([choice]) + b"120\n" + json.dumps(body).encode()
                for choice in range(0, 33, 4)
                for body in (GRANTED, REFUSED, *IDENTITIES)
            ),
            b"\x08Tue, 24 Nov 2026 10:12:20 GMT\n<html>",
            b'\x00\n{"access_token": "a", "expires_in": 1e400}',
        ),
    ),
    "sealed_blob": Target(sealed_blob, tuple(bytes.fromhex(sealed) for sealed in SEALED)),
    "page_token": Target(page_token, (PAGE_TOKEN.encode(), PAGE_TOKEN.encode() + b"=", "٣\ud7ff".encode())),
}
