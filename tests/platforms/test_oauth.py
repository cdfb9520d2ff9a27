"""OAuth without I/O: the bytes that are sent, and what each answer means."""

import base64
import dataclasses
import json
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.accounts.errors import (
    GrantDead,
    OurFault,
    OutcomeUnknown,
    PlatformError,
    PlatformRefused,
    TokenRejected,
)
from server.accounts.grants import TokenSet
from server.accounts.model import Identity, Secret
from server.platforms import oauth
from server.platforms.definition import OAuth2Platform, Rotation
from server.platforms.messages import HttpReply
from server.platforms.registration import Registration
from server.platforms.twitter import TWITTER

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
OURS = Registration("client:id", Secret("s e+cret/&=%"))
SPENT = TokenSet(Secret("at-old"), Secret("rt-old"), NOW, ("tweet.read", "users.read"))
GOOD = {"token_type": "bearer", "access_token": "at-new", "refresh_token": "rt-new", "expires_in": 7200}


def reply(status: int, body: Any = b"", **headers: str) -> HttpReply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(status, raw, headers)


def read(status: int, body: Any = b"", definition: OAuth2Platform = TWITTER, **headers: str) -> TokenSet:
    return oauth.read_refresh(definition, OURS, reply(status, body, **headers), SPENT, NOW)


# --- requests


def test_two_refreshes_never_share_a_token() -> None:
    tokens = [Secret(f"rt-{n}") for n in range(3)]
    bodies = [oauth.refresh_request(TWITTER, OURS, token, TWITTER.token_endpoint).body.decode() for token in tokens]
    assert [parse_qs(body)["refresh_token"] for body in bodies] == [["rt-0"], ["rt-1"], ["rt-2"]]


def test_an_empty_refresh_token_is_never_sent() -> None:
    with pytest.raises(ValueError, match="no refresh token"):
        oauth.refresh_request(TWITTER, OURS, Secret(""), TWITTER.token_endpoint)


def test_no_request_shows_a_secret() -> None:
    request = oauth.refresh_request(TWITTER, OURS, Secret("rt-canary"), TWITTER.token_endpoint)
    assert "canary" not in repr(request) and "s e+cret" not in repr(OURS)


# --- token replies


def test_a_good_reply_is_a_new_token_set() -> None:
    fresh = read(200, {**GOOD, "scope": "users.read tweet.read"})
    assert fresh.access_token == Secret("at-new") and fresh.refresh_token == Secret("rt-new")
    assert fresh.expire_time == NOW + timedelta(hours=2)
    assert fresh.scopes == ("users.read", "tweet.read")


@pytest.mark.parametrize("without", [{}, {"refresh_token": ""}, {"refresh_token": None}, {"refresh_token": 7}])
def test_a_missing_refresh_token_never_replaces_a_stored_one(without: dict[str, Any]) -> None:
    body = {name: value for name, value in GOOD.items() if name != "refresh_token"}
    assert read(200, {**body, **without}).refresh_token == Secret("rt-old")


@pytest.mark.parametrize(
    ("value", "life"),
    [
        (10**400, 315_360_000), (-(10**400), 0),
        (3600, 3600), ("3600", 3600), (3600.5, 3600.5), (0, 0), (-1, 0), ("-5", 0), (1e18, 315_360_000),
        ("soon", 7200), (None, 7200), (True, 7200), ([], 7200), ("nan", 7200), (float("inf"), 315_360_000),
    ],
    ids=lambda value: str(value)[:12],
)  # fmt: skip
def test_a_lifetime_is_never_lengthened(value: Any, life: float) -> None:
    assert read(200, {**GOOD, "expires_in": value}).expire_time == NOW + timedelta(seconds=life)


@pytest.mark.parametrize(
    ("scope", "granted"),
    [("a b", ("a", "b")), ("a,b", ("a", "b")), (["a", "b"], ("a", "b")), ("a a", ("a",)), (7, SPENT.scopes),
     (["a", 7], SPENT.scopes),
     (["a,b", "c"], ("a", "b", "c")), ("", ()), ("a \ud800 \u00e9 b", ("a", "b"))],
    ids=ascii,
)  # fmt: skip
def test_scopes_come_in_many_shapes(scope: Any, granted: tuple[str, ...]) -> None:
    assert read(200, {**GOOD, "scope": scope}).scopes == granted


X_DEAD = {"error": "invalid_request", "error_description": "Value passed for the token was invalid."}
X_OTHER = {"error": "invalid_request", "error_description": "Missing required parameter [refresh_token]."}


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (400, X_DEAD, GrantDead),
        (400, {"error": "invalid_grant"}, GrantDead),
        (400, {"error": "invalid_grant", "error_description": "any words"}, GrantDead),
        (400, X_OTHER, OurFault),
        (400, b"<html>invalid_grant</html>", OurFault),
        (401, {"error": "invalid_client"}, OurFault),
        (401, {"error": "unauthorized_client"}, OurFault),
        (402, {"title": "credits exhausted"}, OurFault),
        (403, {"error": "invalid_grant"}, OurFault),
        (400, {"error": ["invalid_grant"]}, OurFault),
        (301, b"", OurFault),
        (307, b"", OurFault),
        (429, {"error": "invalid_grant"}, PlatformRefused),
        (100, GOOD, OutcomeUnknown),
        (199, GOOD, OutcomeUnknown),
        (500, b"oops", OutcomeUnknown),
        (503, {"error": "invalid_grant"}, OutcomeUnknown),
        (200, b"", OutcomeUnknown),
        (200, b"<!doctype html>", OutcomeUnknown),
        (200, [GOOD], OutcomeUnknown),
        (200, {"error": "invalid_grant"}, OutcomeUnknown),
        (200, {**GOOD, "error": "odd"}, OutcomeUnknown),
        (200, {**GOOD, "error": {"code": 1}}, OutcomeUnknown),
        (200, {**GOOD, "error": None}, OutcomeUnknown),
        (200, {n: v for n, v in GOOD.items() if n != "access_token"}, OutcomeUnknown),
        (200, b"\xff\xfe", OutcomeUnknown),
        (200, b"[" * 60_000, OutcomeUnknown),
        (200, {**GOOD, "access_token": ""}, OutcomeUnknown),
        (200, {**GOOD, "access_token": 7}, OutcomeUnknown),
        (200, {**GOOD, "access_token": "a\nb"}, OutcomeUnknown),
        (200, {**GOOD, "access_token": "\ud800"}, OutcomeUnknown),
        (200, {**GOOD, "token_type": "mac"}, OutcomeUnknown),
        (200, {**GOOD, "token_type": ["bearer"]}, OutcomeUnknown),
        (200, {**GOOD, "token_type": ""}, OutcomeUnknown),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_each_answer_has_its_meaning(status: int, body: Any, meaning: type[PlatformError]) -> None:
    with pytest.raises(PlatformError) as caught:
        read(status, body)
    assert type(caught.value) is meaning
    if isinstance(caught.value, OutcomeUnknown):
        # It may hold the only live token.
        assert caught.value.reply == (body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504])
@pytest.mark.parametrize("rotation", Rotation)
def test_a_bad_hour_is_only_a_refusal_where_nothing_rotates(status: int, rotation: Rotation) -> None:
    definition = dataclasses.replace(TWITTER, rotation=rotation)
    with pytest.raises(PlatformRefused if rotation is Rotation.NONE else OutcomeUnknown):
        read(status, b"<html>", definition)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120), ("0", 1), ("999999999999999999", 86400), (format_datetime(NOW + timedelta(seconds=90)), 90),
        (format_datetime(NOW + timedelta(days=3)), 86400), (format_datetime(NOW - timedelta(hours=1)), 1),
        ("-5", None), ("soon", None), ("", None), ("1.5", None),
    ],
    ids=str,
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_a_date_and_clamped(value: str, seconds: int | None) -> None:
    with pytest.raises(PlatformRefused) as caught:
        read(429, b"", **{"retry-after": value})
    assert caught.value.retry_after == (None if seconds is None else timedelta(seconds=seconds))


SECRETS = ("rt-old", "at-old", "s e+cret/&=%", "s+e%2Bcret%2F%26%3D%25", oauth.basic_header(OURS)[6:])


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("status", [400, 429, 503, 200])
def test_an_error_that_echoes_what_was_sent_does_not_carry_it_on(secret: str, status: int) -> None:
    with pytest.raises(PlatformError) as caught:
        read(status, {"error": secret, "error_description": f"bad: {secret} {'x' * 500}\x00"})
    shown = f"{caught.value} {caught.value.text} {caught.value.error}"
    assert secret not in shown and "<redacted>" in shown
    assert len(caught.value.error) <= 200 and len(caught.value.text) < 500 and caught.value.text.isprintable()


SPELLINGS: dict[str, Callable[[bytes], str]] = {
    "base64": lambda secret: base64.b64encode(secret).decode(),
    "base64, one byte on": lambda secret: base64.b64encode(b"x" + secret).decode(),
    "base64url": lambda secret: base64.urlsafe_b64encode(secret).decode(),
    "hex": bytes.hex,
    "percent": lambda secret: "".join(f"%{byte:02X}" for byte in secret),
    "unsent": lambda secret: f"sbx-refresh-{secret.hex()}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_that_comes_back_in_another_spelling_is_not_carried_on(spelling: str) -> None:
    spelt = SPELLINGS[spelling](secrets.token_bytes(32))
    with pytest.raises(PlatformError) as caught:
        read(400, {"error": spelt, "error_description": f"bad: {spelt}, try again"})
    assert spelt not in caught.value.text and caught.value.text == "400 <redacted> bad: <redacted>, try again"


@pytest.mark.parametrize("code", ["unsupported_response_type", "temporarily_unavailable", "unauthorized_client"])
def test_error_codes_are_carried_on_however_long(code: str) -> None:
    with pytest.raises(PlatformError) as caught:
        read(400, {"error": code, "error_description": "Value passed for the token was invalid (code 89)."})
    assert caught.value.text == f"400 {code} Value passed for the token was invalid (code 89)."


@pytest.mark.parametrize("text", ["a" * 8_000, "a-" * 4_000, "aA" * 32_000, "%2d" * 20_000, "a " * 32_000])
def test_an_error_text_however_long_holds_up_nobody(text: str) -> None:
    began = time.thread_time()
    with pytest.raises(PlatformError):
        read(400, {"error": "invalid_request", "error_description": text})
    assert time.thread_time() - began < 0.5


def test_a_refused_code_is_not_named() -> None:
    secrets = oauth.secrets_sent(OURS, Secret("code-1"), Secret("verifier-1"))
    body = {"error": "invalid_grant", "error_description": "code-1 does not fit verifier-1"}
    with pytest.raises(GrantDead) as caught:
        oauth.read_exchange(TWITTER, reply(400, body), ("users.read",), NOW, secrets)
    assert caught.value.text == "400 invalid_grant <redacted> does not fit <redacted>"


def test_a_secret_that_is_part_of_an_error_code_does_not_hide_its_meaning() -> None:
    ours = Registration("id", Secret("grant"))
    with pytest.raises(GrantDead):
        oauth.read_refresh(TWITTER, ours, reply(400, {"error": "invalid_grant"}), SPENT, NOW)


def test_a_first_token_set_without_refresh_token_or_scope_has_none_and_what_was_asked() -> None:
    body = {"token_type": "Bearer", "access_token": "at-1", "refresh_token": ""}
    first = oauth.read_exchange(TWITTER, reply(200, body), ("users.read",), NOW, ())
    assert first == TokenSet(Secret("at-1"), None, NOW + timedelta(hours=2), ("users.read",))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from([*GOOD, "scope", "error", "error_description", "state"])


@settings(max_examples=400, deadline=None)
@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=200)
    | st.dictionaries(names, json_values, max_size=7).map(lambda d: json.dumps(d).encode())
    | st.dictionaries(names, json_values, max_size=3).map(lambda d: json.dumps({**GOOD, **d}).encode()),
    retry=st.text(max_size=30),
)
def test_whatever_arrives_is_a_token_set_or_has_a_meaning(status: int, body: bytes, retry: str) -> None:
    try:
        fresh = oauth.read_refresh(TWITTER, OURS, HttpReply(status, body, {"retry-after": retry}), SPENT, NOW)
    except PlatformError:
        return
    assert 200 <= status < 300
    assert fresh.access_token and fresh.refresh_token
    # What no database can hold must not come out of a refresh that is done.
    json.dumps([fresh.access_token.reveal(), fresh.refresh_token.reveal(), *fresh.scopes], ensure_ascii=False).encode()
    assert fresh.expire_time is not None and NOW <= fresh.expire_time <= NOW + timedelta(days=3650)


# --- identity and revocation


def test_the_identity_is_the_unchanging_id_and_what_is_shown() -> None:
    body = {"data": {"id": "42", "username": "ada", "name": "Ada", "profile_image_url": "https://i.test/a.png"}}
    assert oauth.read_identity(TWITTER, reply(200, body), NOW) == (
        Identity("42", "ada", "Ada", "https://i.test/a.png"),
    )


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (401, b"", TokenRejected),
        (403, b"", PlatformRefused),
        (429, b"", PlatformRefused),
        (503, b"", PlatformRefused),
        (200, b"<html>", OutcomeUnknown),
        (200, {"data": {}}, OutcomeUnknown),
        (200, {"data": {"id": "", "username": "x"}}, OutcomeUnknown),
        (200, {"data": {"id": None, "username": "x"}}, OutcomeUnknown),
        (200, {"data": {"id": 42, "username": "x"}}, OutcomeUnknown),
        (200, {"data": {"id": "4\ud800", "username": "x"}}, OutcomeUnknown),
        (200, {"data": {"id": "42", "username": None}}, OutcomeUnknown),
        (200, {"data": {"id": "42", "username": 7}}, OutcomeUnknown),
        (200, {"data": [1]}, OutcomeUnknown),
        (200, {"errors": []}, OutcomeUnknown),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_an_identity_that_cannot_be_read_names_nobody(status: int, body: Any, meaning: type[PlatformError]) -> None:
    with pytest.raises(PlatformError) as caught:
        oauth.read_identity(TWITTER, reply(status, body), NOW)
    assert type(caught.value) is meaning


def test_a_name_is_shown_without_what_no_message_can_hold() -> None:
    family = "\U0001f469\u200d\U0001f467"
    body = {"data": {"id": "42", "username": "ada\x00", "name": f"A\ud800da {family}", "profile_image_url": 7}}
    [identity] = oauth.read_identity(TWITTER, reply(200, body), NOW)
    assert identity == Identity("42", "ada", f"Ada {family}", "")


@pytest.mark.parametrize("status", [200, 204])
def test_a_revocation_is_confirmed_by_success_whatever_the_body(status: int) -> None:
    oauth.read_revoke(TWITTER, OURS, reply(status, b"<html>"), Secret("t"), NOW)


def test_a_token_that_the_platform_calls_invalid_needs_no_revocation() -> None:
    oauth.read_revoke(TWITTER, OURS, reply(400, X_DEAD), Secret("t"), NOW)


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (503, PlatformRefused),
        (429, PlatformRefused),
        (408, PlatformRefused),
        (400, OurFault),
        (401, OurFault),
        (302, OurFault),
    ],
)
def test_another_answer_to_a_revocation_confirms_nothing(status: int, meaning: type[PlatformError]) -> None:
    with pytest.raises(PlatformError) as caught:
        oauth.read_revoke(
            TWITTER, OURS, reply(status, {"error": "x", "error_description": "tok-1"}), Secret("tok-1"), NOW
        )
    assert type(caught.value) is meaning
    assert "tok-1" not in caught.value.text
