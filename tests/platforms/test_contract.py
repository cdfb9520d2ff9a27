"""What every platform definition promises: whoever adds one gets these tests."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from server.accounts.errors import GrantDead
from server.accounts.grants import TokenSet
from server.accounts.model import Secret
from server.accounts.ports import Platform
from server.platforms import oauth
from server.platforms.catalog import PLATFORMS
from server.platforms.definition import ClientAuth, OAuth2Platform, Pkce, Refusal, Rotation
from server.platforms.http import Sender
from server.platforms.messages import HttpReply
from server.platforms.platform import RegisteredPlatform
from server.platforms.registration import Registration
from tests.platforms.definitions import DEFINITIONS
from tests.platforms.peer import REDIRECT_URI, exchange, http, peer, registered, says

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
OURS = Registration("client:id", Secret("s e+cret/&=%"))
SPENT = TokenSet(Secret("at-old"), Secret("rt-old"), NOW, ("one", "two"))
# RFC 7636 appendix B
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

every = pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda each: each.id)


def form_of(body: bytes) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(body.decode(), strict_parsing=True).items()}


def assert_ours(definition: OAuth2Platform, headers: Any, form: dict[str, str]) -> None:
    """The request says who we are in the one way that the platform takes."""
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    if definition.client_auth is ClientAuth.BASIC:
        scheme, _, pair = headers["authorization"].partition(" ")
        # RFC 6749 section 2.3.1: form-encoded before it is base64.
        assert (scheme, base64.b64decode(pair)) == ("Basic", b"client%3Aid:s+e%2Bcret%2F%26%3D%25")
        assert "client_secret" not in form
    else:
        assert (form["client_id"], form["client_secret"]) == ("client:id", "s e+cret/&=%")
        assert "authorization" not in headers


def test_no_two_platforms_share_an_id() -> None:
    assert len({definition.id for definition in PLATFORMS}) == len(PLATFORMS)


@every
def test_a_definition_is_consistent(definition: OAuth2Platform) -> None:
    assert set(definition.required_scopes) <= set(definition.default_scopes) <= definition.allowed_scopes
    assert definition.dead_grant and definition.refused_code and definition.denied_errors
    assert definition.code_lifetime > timedelta() and definition.identity_interval > timedelta()
    for endpoint in (definition.authorization_endpoint, definition.token_endpoint, definition.identity_endpoint):
        assert endpoint.startswith("https://") and "?" not in endpoint


@every
async def test_the_authorization_url_asks_for_a_code_with_state_and_challenge(
    definition: OAuth2Platform, sender: Sender
) -> None:
    platform: Platform = RegisteredPlatform(definition, OURS, sender, lambda: NOW)
    url = platform.authorization_url(
        redirect_uri=REDIRECT_URI,
        scopes=definition.default_scopes,
        state=Secret("state-1"),
        code_verifier=Secret(VERIFIER),
    )
    address, _, query = url.partition("?")
    expected = {
        "response_type": "code",
        "client_id": "client:id",
        "redirect_uri": REDIRECT_URI,
        "scope": " ".join(definition.default_scopes),
        "state": "state-1",
    }
    if definition.pkce is Pkce.S256:
        expected |= {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
    assert address == definition.authorization_endpoint
    assert form_of(query.encode()) == expected


@every
async def test_an_exchange_is_one_form_with_the_code_and_our_credentials(
    definition: OAuth2Platform, sender: Sender
) -> None:
    async with peer(says(http())) as found:
        await exchange(registered(found.url, sender, definition=definition))
    [request] = found.received
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
    headers = {name.lower(): value for name, _, value in lines}
    form = form_of(body)
    expected = {"grant_type": "authorization_code", "code": "code-canary", "redirect_uri": REDIRECT_URI}
    if definition.pkce is Pkce.S256:
        expected |= {"code_verifier": "verifier-canary-" + "v" * 43}
    if definition.client_auth is ClientAuth.POST:
        expected |= {"client_id": "client:id", "client_secret": "client-secret-canary+/"}
        assert "authorization" not in headers
    else:
        pair = base64.b64decode(headers["authorization"].removeprefix("Basic "))
        assert pair == b"client%3Aid:client-secret-canary%2B%2F"
    assert head.startswith(b"POST /token ")
    assert form == expected


@every
def test_a_refresh_is_one_form_with_the_refresh_token_and_our_credentials(definition: OAuth2Platform) -> None:
    request = oauth.refresh_request(definition, OURS, Secret("rt-1"), definition.token_endpoint)
    form = form_of(request.body)
    assert (request.method, request.url) == ("POST", definition.token_endpoint)
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "rt-1")
    assert "scope" not in form
    assert_ours(definition, request.headers, form)


@every
def test_a_revocation_is_one_form_with_the_token_and_our_credentials(definition: OAuth2Platform) -> None:
    request = oauth.revoke_request(definition, OURS, Secret("rt-1"), "https://platform.test/revoke")
    form = form_of(request.body)
    assert (request.method, request.url, form["token"]) == ("POST", "https://platform.test/revoke", "rt-1")
    assert_ours(definition, request.headers, form)


@every
def test_the_identity_is_read_with_the_access_token_alone(definition: OAuth2Platform) -> None:
    request = oauth.identity_request(definition, Secret("at-1"), definition.identity_endpoint)
    parts = urlsplit(request.url)
    assert (request.method, request.body) == ("GET", b"")
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == definition.identity_endpoint
    assert parts.query == definition.identity_query
    assert request.headers["authorization"] == "Bearer at-1"


def answer_of(refusal: Refusal) -> HttpReply:
    body = {"error": refusal.error, "error_description": refusal.description or "any words"}
    return HttpReply(refusal.status, json.dumps(body).encode())


@every
def test_each_answer_of_its_tables_is_dead_for_good(definition: OAuth2Platform) -> None:
    for refusal in definition.dead_grant:
        with pytest.raises(GrantDead):
            oauth.read_refresh(definition, OURS, answer_of(refusal), SPENT, NOW)
        # Who is told that a token is not valid has what a revocation wants.
        oauth.read_revoke(definition, OURS, answer_of(refusal), Secret("t"), NOW)
    for refusal in definition.refused_code:
        with pytest.raises(GrantDead):
            oauth.read_exchange(definition, answer_of(refusal), ("one",), NOW, ())


@every
def test_a_lifetime_that_is_not_told_is_the_platforms_own(definition: OAuth2Platform) -> None:
    reply = HttpReply(200, b'{"token_type":"bearer","access_token":"at-new"}')
    fresh = oauth.read_refresh(definition, OURS, reply, SPENT, NOW)
    own = definition.default_access_token_lifetime
    assert fresh.expire_time == (None if own is None else NOW + own)


@every
async def test_its_rules_tell_the_domain_what_is_at_stake(definition: OAuth2Platform, sender: Sender) -> None:
    rules = RegisteredPlatform(definition, OURS, sender, lambda: NOW).rules
    assert rules.revocation_supported is (definition.revocation_endpoint != "")
    assert rules.required_scopes == definition.required_scopes


@pytest.mark.parametrize(
    ("rotation", "lost"), [(Rotation.SINGLE_USE, True), (Rotation.MAYBE, True), (Rotation.NONE, False)]
)
async def test_a_lost_answer_is_a_lost_token_unless_nothing_rotates(
    rotation: Rotation, lost: bool, sender: Sender
) -> None:
    definition = replace(PLATFORMS[0], rotation=rotation)
    assert RegisteredPlatform(definition, OURS, sender, lambda: NOW).rules.refresh_token_single_use is lost
