"""OAuth without I/O: the bytes that are sent, and what each answer means."""

import base64
import json
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
from server.accounts.model import Identity, Secret, TokenSet
from server.platforms import oauth
from server.platforms.catalog import PLATFORMS
from server.platforms.definition import ClientAuth, OAuth2Platform, Rotation
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
    return oauth.read_refresh(definition, reply(status, body, **headers), SPENT, NOW)


# --- requests


@pytest.mark.parametrize("definition", PLATFORMS, ids=lambda each: each.id)
def test_a_refresh_is_one_form_with_the_refresh_token_and_our_credentials(definition: OAuth2Platform) -> None:
    request = oauth.refresh_request(definition, OURS, Secret("rt-1"))
    form = parse_qs(request.body.decode())
    assert (request.method, request.url) == ("POST", definition.token_endpoint)
    assert form["grant_type"] == ["refresh_token"] and form["refresh_token"] == ["rt-1"]
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    if definition.client_auth is ClientAuth.BASIC:
        assert "client_secret" not in form
        assert base64.b64decode(request.headers["authorization"][6:]) == b"client%3Aid:s+e%2Bcret%2F%26%3D%25"
    else:
        assert form["client_secret"] == ["s e+cret/&=%"]


def test_two_refreshes_never_share_a_token() -> None:
    bodies = [oauth.refresh_request(TWITTER, OURS, Secret(f"rt-{n}")).body.decode() for n in range(3)]
    assert [parse_qs(body)["refresh_token"] for body in bodies] == [["rt-0"], ["rt-1"], ["rt-2"]]


def test_an_empty_refresh_token_is_never_sent() -> None:
    with pytest.raises(ValueError, match="no refresh token"):
        oauth.refresh_request(TWITTER, OURS, Secret(""))


def test_a_revocation_is_one_form_with_the_token() -> None:
    request = oauth.revoke_request(TWITTER, OURS, Secret("rt-1"), "https://api.x.com/2/oauth2/revoke")
    assert parse_qs(request.body.decode()) == {"token": ["rt-1"]}
    assert request.headers["authorization"].startswith("Basic ")


def test_the_identity_is_read_with_the_access_token_alone() -> None:
    request = oauth.identity_request(TWITTER, Secret("at-1"), TWITTER.identity_endpoint)
    assert request.url == "https://api.x.com/2/users/me?user.fields=profile_image_url"
    assert request.headers["authorization"] == "Bearer at-1"


def test_no_request_shows_a_secret() -> None:
    request = oauth.refresh_request(TWITTER, OURS, Secret("rt-canary"))
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
        (3600, 3600), ("3600", 3600), (3600.5, 3600.5), (0, 0), (-1, 0), ("-5", 0), (1e18, 315_360_000),
        ("soon", 7200), (None, 7200), (True, 7200), ([], 7200), ("nan", 7200), (float("inf"), 315_360_000),
    ],
    ids=str,
)  # fmt: skip
def test_a_lifetime_is_never_lengthened(value: Any, life: float) -> None:
    assert read(200, {**GOOD, "expires_in": value}).expire_time == NOW + timedelta(seconds=life)


def test_a_missing_lifetime_is_the_platforms_own() -> None:
    assert read(200, {n: v for n, v in GOOD.items() if n != "expires_in"}).expire_time == NOW + timedelta(hours=2)


@pytest.mark.parametrize(
    ("scope", "granted"),
    [("a b", ("a", "b")), ("a,b", ("a", "b")), (["a", "b"], ("a", "b")), ("a a", ("a",)), (7, SPENT.scopes)],
    ids=str,
)
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
        (403, {"error": "invalid_grant"}, OurFault),
        (301, b"", OurFault),
        (307, b"", OurFault),
        (429, {"error": "invalid_grant"}, PlatformRefused),
        (408, b"", OutcomeUnknown),
        (500, b"oops", OutcomeUnknown),
        (503, {"error": "invalid_grant"}, OutcomeUnknown),
        (200, b"", OutcomeUnknown),
        (200, b"<!doctype html>", OutcomeUnknown),
        (200, [GOOD], OutcomeUnknown),
        (200, {"error": "invalid_grant"}, OutcomeUnknown),
        (200, {**GOOD, "error": "odd"}, OutcomeUnknown),
        (200, {**GOOD, "access_token": ""}, OutcomeUnknown),
        (200, {**GOOD, "access_token": 7}, OutcomeUnknown),
        (200, {**GOOD, "access_token": "a\nb"}, OutcomeUnknown),
        (200, {**GOOD, "access_token": "\ud800"}, OutcomeUnknown),
        (200, {**GOOD, "token_type": "mac"}, OutcomeUnknown),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_answer_has_its_meaning(status: int, body: Any, meaning: type[PlatformError]) -> None:
    with pytest.raises(PlatformError) as caught:
        read(status, body)
    assert type(caught.value) is meaning
    if isinstance(caught.value, OutcomeUnknown):
        # It may hold the only live token.
        assert caught.value.reply == (body if isinstance(body, bytes) else json.dumps(body).encode())


def test_where_nothing_rotates_a_5xx_is_only_a_refusal() -> None:
    import dataclasses

    lasting = dataclasses.replace(TWITTER, rotation=Rotation.NONE)
    with pytest.raises(PlatformRefused):
        read(503, b"", lasting)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120), ("0", 1), ("999999999999999999", 86400), (format_datetime(NOW + timedelta(seconds=90)), 90),
        (format_datetime(NOW - timedelta(hours=1)), 1), ("-5", None), ("soon", None), ("", None), ("1.5", None),
    ],
    ids=str,
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_a_date_and_clamped(value: str, seconds: int | None) -> None:
    with pytest.raises(PlatformRefused) as caught:
        read(429, b"", **{"retry-after": value})
    assert caught.value.retry_after == (None if seconds is None else timedelta(seconds=seconds))


def test_an_error_that_echoes_the_token_does_not_carry_it_on() -> None:
    echo = {"error": "rt-old", "error_description": f"bad token rt-old at-old {'x' * 500}\x00"}
    with pytest.raises(OurFault) as caught:
        read(400, echo)
    assert "rt-old" not in str(caught.value) and "at-old" not in str(caught.value)
    assert len(caught.value.text) < 500 and caught.value.text.isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
fields = st.sampled_from([*GOOD, "scope", "error", "error_description", "token_type", "state"])


@settings(max_examples=400, deadline=None)
@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=200)
    | st.dictionaries(fields, json_values, max_size=7).map(lambda d: json.dumps(d).encode()),
    retry=st.text(max_size=30),
)
def test_whatever_arrives_is_a_token_set_or_has_a_meaning(status: int, body: bytes, retry: str) -> None:
    try:
        fresh = oauth.read_refresh(TWITTER, HttpReply(status, body, {"retry-after": retry}), SPENT, NOW)
    except PlatformError:
        return
    assert 200 <= status < 300
    assert fresh.access_token and fresh.refresh_token
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
        (200, {"data": [1]}, OutcomeUnknown),
        (200, {"errors": []}, OutcomeUnknown),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_identity_that_cannot_be_read_names_nobody(status: int, body: Any, meaning: type[PlatformError]) -> None:
    with pytest.raises(PlatformError) as caught:
        oauth.read_identity(TWITTER, reply(status, body), NOW)
    assert type(caught.value) is meaning


def test_a_revocation_is_confirmed_by_200_alone() -> None:
    oauth.read_revoke(reply(200, {}), NOW, Secret("t"))
    for status, meaning in ((503, PlatformRefused), (429, PlatformRefused), (400, OurFault), (302, OurFault)):
        with pytest.raises(meaning):
            oauth.read_revoke(reply(status, {"error": "x"}), NOW, Secret("t"))
