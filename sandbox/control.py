"""A client of the control API, and a browser for programs: what tests and the demo drive the sandbox with."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import aiohttp


class Control:
    """`async with Control(url) as sandbox:`"""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def consent(
        self, authorization_url: str, username: str, decision: str = "allow", grant_scope: str | None = None
    ) -> str:
        """Plays the user's browser at the platform; the URL that the platform sends it back to."""
        form = {"username": username, "decision": decision}
        if grant_scope is not None:
            form["grant_scope"] = grant_scope
        async with self._opened.post(authorization_url, data=form, allow_redirects=False) as response:
            if response.status != 303:
                raise AssertionError(f"{response.status} at the consent page: {await response.text()}")
            return response.headers["Location"]

    async def add_client(self, client_id: str, client_secret: str, *redirect_uris: str) -> None:
        body = {"client_id": client_id, "client_secret": client_secret, "redirect_uris": list(redirect_uris)}
        await self._call("POST", "clients", body)

    async def settings(self, **settings: Any) -> None:
        await self._call("POST", "settings", settings)

    async def add_user(self, username: str, name: str) -> dict[str, Any]:
        return dict(await self._call("POST", "users", {"username": username, "name": name}))

    async def users(self) -> list[dict[str, Any]]:
        return list(await self._call("GET", "users"))

    async def rename(self, user: str, username: str) -> None:
        """`user` is an id or a username."""
        await self._call("PATCH", f"users/{user}", {"username": username})

    async def revoke_user(self, user: str) -> int:
        """Ends all grants of a user, as the user would in the platform's settings; how many."""
        return int((await self._call("POST", f"users/{user}/revoke"))["revoked"])

    async def end_access(self, user: str) -> None:
        """Ends the user's access tokens before their time, as platforms do now and then; the grants stay."""
        await self._call("POST", f"users/{user}/end_access")

    async def posts(self) -> list[dict[str, Any]]:
        """Every post that the platform has taken, oldest first."""
        return list(await self._call("GET", "posts"))

    async def media(self) -> list[dict[str, Any]]:
        """Every upload, with its length and the SHA-256 of its bytes."""
        return list(await self._call("GET", "media"))

    async def seed_grants(self, refresh_tokens: list[str], scope: str, username: str = "ada") -> None:
        """A grant of the app for each refresh token, as a consent would have left it."""
        facts = {"client_id": "sandbox-client", "username": username, "scope": scope}
        await self._call("POST", "grants", {**facts, "refresh_tokens": refresh_tokens})

    async def fault(self, at: str, fault: str, **facts: Any) -> None:
        await self._call("POST", "faults", {"at": at, "fault": fault, **facts})

    async def clear_faults(self) -> None:
        await self._call("DELETE", "faults")

    async def until_held(self, count: int = 1) -> None:
        """Returns when `count` requests are held by `hold_before` or `hold_after`."""
        await self._call("GET", f"held?count={count}")

    async def release(self) -> None:
        await self._call("POST", "release")

    async def ledger(self) -> list[dict[str, Any]]:
        """Every grant, oldest first."""
        return list(await self._call("GET", "ledger"))

    async def requests(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        return [each for each in await self._call("GET", "requests") if endpoint in (None, each["endpoint"])]

    async def clear_requests(self) -> None:
        await self._call("DELETE", "requests")

    async def reset(self) -> None:
        await self._call("POST", "reset")

    @property
    def _opened(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use it as a context manager"
        return self._session

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        async with self._opened.request(method, f"/control/{path}", json=body) as response:
            if response.status != 200:
                raise AssertionError(f"{method} /control/{path}: {response.status} {await response.text()}")
            return await response.json()
