"""Faults on command: what a platform does wrong, before or after it has acted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

Act = Callable[[], Awaitable[web.StreamResponse]]

X_DEAD = {"error": "invalid_request", "error_description": "Value passed for the token was invalid."}
ANSWERS: dict[str, tuple[int, dict[str, Any]]] = {
    "invalid_grant": (400, {"error": "invalid_grant"}),
    "invalid_client": (401, {"error": "invalid_client"}),
    "dead_token": (400, X_DEAD),
    "rate_limited": (429, {"title": "Too Many Requests", "status": 429}),
}
KINDS = frozenset(
    {
        *ANSWERS, "hang", "hang_after", "hold_before", "hold_after", "drop_before", "drop_after", "status_before",
        "status_after", "cut_after", "redirect", "drip", "huge", "html", "html_after", "no_refresh_token",
        "empty_refresh_token", "expires_in", "fewer_scopes", "wrong_id", "iss", "echo",
    }
)  # fmt: skip
PLACES = frozenset({"token", "revoke", "identity", "authorize", "post", "read", "delete", "media"})
ONLY_AT = {
    "iss": "authorize", "wrong_id": "identity", "no_refresh_token": "token", "empty_refresh_token": "token",
    "expires_in": "token", "fewer_scopes": "token",
}  # fmt: skip


@dataclass
class Fault:
    """One fault in line. `only` is refresh or code, for the token endpoint; -1 times: forever; `seconds` is how long
    it hangs; `value` is the JSON value of expires_in (null: absent), the list of fewer_scopes, the issuer of iss."""

    at: str
    fault: str
    times: int = 1
    only: str | None = None
    seconds: float = 3600.0
    status: int = 503
    retry_after: str | int | None = None
    location: str = ""
    value: Any = None

    def objection(self) -> str | None:
        """Why it cannot be: a fault that would never show itself makes a test that proves nothing."""
        if self.fault not in KINDS or self.at not in PLACES:
            return f"known faults: {', '.join(sorted(KINDS))}; at: {', '.join(sorted(PLACES))}"
        if ONLY_AT.get(self.fault, self.at) != self.at:
            return f"{self.fault} is only at {ONLY_AT[self.fault]}"
        if self.only not in (None, "refresh", "code") or (self.only and self.at != "token"):
            return "only: refresh or code, at the token endpoint"
        return None


@dataclass
class Faults:
    """The line of faults, and the requests that are held."""

    line: list[Fault] = field(default_factory=list)
    held: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def take(self, at: str, grant_type: str = "") -> Fault | None:
        """The next fault for a request, if one is in line."""
        kind = {"refresh_token": "refresh", "authorization_code": "code"}.get(grant_type)
        for fault in self.line:
            if fault.at == at and fault.only in (None, kind):
                fault.times -= 1
                if fault.times == 0:
                    self.line.remove(fault)
                return fault
        return None

    def clear(self) -> None:
        self.line.clear()
        self.release()

    def release(self) -> None:
        """Lets the held requests go on."""
        self.released.set()
        self.released = asyncio.Event()

    async def hold(self) -> None:
        released = self.released
        await self._count(1)
        await released.wait()
        await self._count(-1)

    async def until_held(self, count: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.held >= count)

    async def _count(self, by: int) -> None:
        async with self.changed:
            self.held += by
            self.changed.notify_all()

    async def carry_out(self, fault: Fault | None, request: web.Request, act: Act) -> web.StreamResponse:
        """Answers `request` as the fault wants it; `act` does what the platform would do."""
        if fault is None:
            return await act()
        kind = fault.fault
        if kind in ("hang", "hang_after"):
            response = await act() if kind == "hang_after" else None
            await asyncio.sleep(fault.seconds)
            return response or await act()
        if kind in ("hold_before", "hold_after"):
            response = await act() if kind == "hold_after" else None
            await self.hold()
            if request.transport is None or request.transport.is_closing():
                return response or web.Response()  # the other side is gone: what was not done stays undone
            return response or await act()
        if kind.endswith("_after"):
            await act()
        if kind == "cut_after":
            return await cut(request)
        if kind.startswith("drop"):
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if kind.startswith("status"):
            return web.Response(status=fault.status, text="the sandbox has a bad hour", headers=retry_header(fault))
        if kind.startswith("html"):
            return web.Response(text="<!doctype html><title>Sign in</title>", content_type="text/html")
        if kind in ANSWERS:
            status, body = ANSWERS[kind]
            return web.json_response(body, status=status, headers=retry_header(fault))
        if kind in ANSWERED:
            return await ANSWERED[kind](request, fault)
        return altered(fault, await act())


def retry_header(fault: Fault) -> dict[str, str]:
    return {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}


async def echo(request: web.Request, fault: Fault) -> web.StreamResponse:
    """Says again what was sent, credentials and all, wherever an error has room for it."""
    form = await request.post()
    said = " ".join([*map(str, form.values()), request.headers.get("Authorization", "")])
    answer = {"error": said, "error_description": said, "title": said, "detail": said}
    return web.json_response(answer, status=fault.status, headers={"X-Echo": said, "WWW-Authenticate": said})


async def cut(request: web.Request) -> web.StreamResponse:
    """The head of an answer, a little of its body, and the end of the connection."""
    response = web.StreamResponse(status=201, headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"data":')
    if request.transport is not None:
        request.transport.close()
    return response


async def redirect(_: web.Request, fault: Fault) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": fault.location})


async def stream(request: web.Request, fault: Fault) -> web.StreamResponse:
    """A byte a second, or as much as the other side takes."""
    slow = fault.fault == "drip"
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for _ in range(3600 if slow else 16 * 1024):
        await response.write(b" " if slow else b" " * 65536)
        if slow:
            await asyncio.sleep(1)
    return response


ANSWERED = {"echo": echo, "redirect": redirect, "drip": stream, "huge": stream}


def altered(fault: Fault, response: web.StreamResponse) -> web.StreamResponse:
    """A good answer with one thing wrong; an answer that is not good is left as it is."""
    if fault.fault == "iss" and "Location" in response.headers:  # RFC 9207
        response.headers["Location"] += "&" + urlencode({"iss": fault.value})
    if response.status != 200 or not isinstance(response, web.Response):
        return response
    body = json.loads(bytes(response.body))  # type: ignore[arg-type]
    if fault.fault == "no_refresh_token":
        body.pop("refresh_token", None)
    elif fault.fault == "empty_refresh_token":
        body["refresh_token"] = ""
    elif fault.fault == "expires_in":
        body["expires_in"] = fault.value
        if fault.value is None:
            del body["expires_in"]
    elif fault.fault == "fewer_scopes":
        body["scope"] = " ".join(fault.value)
    elif fault.fault == "wrong_id":
        who = body.get("data", body)
        who["id" if "id" in who else "sub"] = "999"
    return web.json_response(body, status=response.status)
