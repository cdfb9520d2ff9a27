"""The sandbox plays X: over real HTTP, with the rules and the words that X has."""

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import aiohttp
import pytest

from sandbox.control import Control
from sandbox.server import NotLoopback, running

REDIRECT = "https://app.test/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
SCOPES = "users.read tweet.read offline.access"


class App:
    """A registered app that speaks to the sandbox."""

    def __init__(self, control: Control, http: aiohttp.ClientSession) -> None:
        self.control, self.http = control, http
        self.basic = self.header("app", "secret")

    @staticmethod
    def header(client_id: str, secret: str) -> str:
        return "Basic " + base64.b64encode(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()).decode()

    def url(self, **changes: str | None) -> str:
        query: dict[str, str | None] = {
            "response_type": "code",
            "client_id": "app",
            "redirect_uri": REDIRECT,
            "scope": SCOPES,
            "state": "state-1",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **changes,
        }
        wanted = {name: value for name, value in query.items() if value is not None}
        return f"{self.control.url}/i/oauth2/authorize?{urlencode(wanted)}"

    async def code(self, username: str = "ada", **consent: Any) -> str:
        back = await self.control.consent(self.url(), username, **consent)
        return parse_qs(urlsplit(back).query)["code"][0]

    async def post(self, path: str, form: dict[str, str], authorization: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": authorization or self.basic}
        async with self.http.post(self.control.url + path, data=form, headers=headers) as response:
            return response.status, await response.json()

    async def exchange(self, code: str, **changes: str) -> tuple[int, Any]:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER}
        return await self.post("/2/oauth2/token", {**form, **changes})

    async def refresh(self, token: str) -> tuple[int, Any]:
        return await self.post("/2/oauth2/token", {"grant_type": "refresh_token", "refresh_token": token})

    async def revoke(self, token: str) -> int:
        return (await self.post("/2/oauth2/revoke", {"token": token}))[0]

    async def me(self, token: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.control.url}/2/users/me?user.fields=profile_image_url"
        async with self.http.get(url, headers=headers) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with running() as sandbox, Control(sandbox.url) as control, aiohttp.ClientSession() as http:
        await control.add_client("app", "secret", REDIRECT)
        yield App(control, http)


BAD_CODE = {"error": "invalid_request", "error_description": "Value passed for the authorization code was invalid."}
BAD_TOKEN = {"error": "invalid_request", "error_description": "Value passed for the token was invalid."}


async def test_a_code_brings_tokens_once(app: App) -> None:
    code = await app.code()
    status, token = await app.exchange(code)
    assert status == 200
    assert token["token_type"] == "bearer" and token["expires_in"] == 7200 and token["scope"] == SCOPES
    assert (await app.me(token["access_token"]))[1]["data"]["username"] == "ada"
    assert await app.exchange(code) == (400, BAD_CODE)
    assert (await app.me(token["access_token"]))[0] == 401


async def test_a_code_is_good_for_its_time_its_redirect_uri_and_its_verifier(app: App) -> None:
    assert await app.exchange(await app.code(), code_verifier="w" * 43) == (400, BAD_CODE)
    assert await app.exchange(await app.code(), redirect_uri=REDIRECT + "/") == (400, BAD_CODE)
    await app.control.settings(code_seconds=0)
    assert await app.exchange(await app.code()) == (400, BAD_CODE)


@pytest.mark.parametrize(
    "changes",
    [{"code_challenge": None}, {"redirect_uri": REDIRECT + "/"}, {"client_id": "stranger"}, {"response_type": "token"}],
    ids=str,
)
async def test_a_bad_authorization_request_shows_a_page_and_redirects_nowhere(
    app: App, changes: dict[str, str | None]
) -> None:
    async with app.http.get(app.url(**changes), allow_redirects=False) as response:
        assert response.status == 400
        assert "Sandbox" in await response.text()


async def test_the_secret_belongs_in_the_header_alone(app: App) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": "app", "client_secret": "secret"}
    for authorization in ("Nothing", app.header("app", "wrong"), app.header("stranger", "secret")):
        status, body = await app.post("/2/oauth2/token", form, authorization)
        assert status == 401
        assert body == {"error": "unauthorized_client", "error_description": "Missing valid authorization header"}


async def test_a_refresh_token_works_once_and_its_replay_kills_the_grant(app: App) -> None:
    _, first = await app.exchange(await app.code())
    status, second = await app.refresh(first["refresh_token"])
    assert status == 200 and second["refresh_token"] != first["refresh_token"]
    assert await app.refresh(first["refresh_token"]) == (400, BAD_TOKEN)
    assert await app.refresh(second["refresh_token"]) == (400, BAD_TOKEN)
    [grant] = await app.control.ledger()
    assert (grant["alive"], grant["replays"], grant["refreshes"]) == (False, 1, 1)


async def test_within_the_grace_a_replay_is_forgiven(app: App) -> None:
    await app.control.settings(replay="grace", grace_seconds=60)
    _, first = await app.exchange(await app.code())
    await app.refresh(first["refresh_token"])
    assert (await app.refresh(first["refresh_token"]))[0] == 200


async def test_without_offline_access_there_is_no_refresh_token(app: App) -> None:
    _, token = await app.exchange(await app.code(grant_scope="users.read tweet.read"))
    assert "refresh_token" not in token and token["scope"] == "users.read tweet.read"


async def test_cancel_says_access_denied(app: App) -> None:
    back = await app.control.consent(app.url(), "ada", "deny")
    assert parse_qs(urlsplit(back).query) == {"error": ["access_denied"], "state": ["state-1"]} or (
        parse_qs(urlsplit(back).query)["error"] == ["access_denied"]
    )


async def test_revoking_either_token_ends_what_it_should(app: App) -> None:
    _, token = await app.exchange(await app.code())
    assert await app.revoke(token["access_token"]) == 200
    assert (await app.me(token["access_token"]))[0] == 401
    status, fresh = await app.refresh(token["refresh_token"])
    assert status == 200
    assert await app.revoke(fresh["refresh_token"]) == await app.revoke("unknown") == 200
    assert (await app.me(fresh["access_token"]))[0] == 401
    assert not (await app.control.ledger())[0]["alive"]


async def test_a_user_can_be_renamed_and_can_take_grants_back(app: App) -> None:
    _, token = await app.exchange(await app.code())
    await app.control.rename("ada", "countess")
    assert (await app.me(token["access_token"]))[1]["data"]["username"] == "countess"
    assert await app.control.revoke_user("countess") == 1
    assert await app.refresh(token["refresh_token"]) == (400, BAD_TOKEN)


async def test_faults_come_as_often_as_they_are_ordered_and_where(app: App) -> None:
    _, token = await app.exchange(await app.code())
    await app.control.fault("token", "status_after", status=502, only="refresh")
    await app.exchange(await app.code("grace"))
    async with app.http.post(
        f"{app.control.url}/2/oauth2/token",
        data={"grant_type": "refresh_token", "refresh_token": token["refresh_token"]},
        headers={"Authorization": app.basic},
    ) as response:
        assert response.status == 502
    [ada, _] = await app.control.ledger()
    assert ada["refreshes"] == 1
    requests = await app.control.requests("token")
    assert [each["fault"] for each in requests] == [None, None, "status_after"]


async def test_an_order_that_makes_no_sense_is_refused_with_what_would(app: App) -> None:
    for order in ({"at": "token", "fault": "earthquake"}, {"at": "moon", "fault": "hang"}):
        with pytest.raises(AssertionError, match="known faults"):
            await app.control.fault(**order)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::"])
async def test_it_serves_this_machine_only(host: str) -> None:
    with pytest.raises(NotLoopback):
        async with running(host):
            pass


async def test_a_page_escapes_what_it_shows(app: App) -> None:
    async with app.http.get(app.url(username="<script>alert(1)</script>", scope="<b>")) as response:
        text = await response.text()
    assert "<script>" not in text and "<b>" not in text
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
