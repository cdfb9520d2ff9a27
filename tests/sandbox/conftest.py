"""A sandbox on a port of its own, and an app that speaks to it over real HTTP."""

import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any, Self
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import aiohttp
import pytest

from sandbox.control import Control
from sandbox.server import running

REDIRECT = "https://app.test/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
SCOPES = "users.read tweet.read offline.access"


class RegisteredApp:
    """A registered app that speaks to the sandbox."""

    def __init__(self, control: Control, http: aiohttp.ClientSession, client_id: str, secret: str) -> None:
        self.control, self.http = control, http
        self.client_id = client_id
        self.basic = self.header(client_id, secret)

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, control: Control, client_id: str, secret: str) -> AsyncIterator[Self]:
        async with aiohttp.ClientSession() as http:
            yield cls(control, http, client_id, secret)

    @staticmethod
    def header(client_id: str, secret: str) -> str:
        return "Basic " + base64.b64encode(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()).decode()

    def url(self, **changes: str | None) -> str:
        query: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
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

    async def tokens(self, username: str = "ada", **consent: Any) -> dict[str, Any]:
        """The token response of a new grant."""
        status, body = await self.exchange(await self.code(username, **consent))
        assert status == 200, body
        return dict(body)

    async def revoke(self, token: str) -> int:
        return (await self.post("/2/oauth2/revoke", {"token": token}))[0]

    async def me(self, token: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.control.url}/2/users/me?user.fields=profile_image_url"
        async with self.http.get(url, headers=headers) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def app() -> AsyncIterator[RegisteredApp]:
    async with running() as sandbox, Control(sandbox.url) as control:
        await control.add_client("app", "secret", REDIRECT)
        async with RegisteredApp.opened(control, "app", "secret") as app:
            yield app
