"""The control API under /control/: how tests and demos look into the sandbox and make it misbehave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, asdict, fields
from typing import Any

from aiohttp import web

from sandbox.faults import Fault, Faults
from sandbox.ledger import App, Ledger, Settings, User

CHANGEABLE = ("username", "name", "avatar")
"""What may be said of a user; the id is the platform's."""


class ControlApi:
    """JSON in, JSON out; loopback only, as all of the sandbox."""

    def __init__(self, ledger: Ledger, faults: Faults, log: list[dict[str, Any]]) -> None:
        self._ledger, self._faults, self._log = ledger, faults, log

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/control/clients", self.add_client),
            web.post("/control/settings", self.change_settings),
            web.get("/control/users", self.users),
            web.post("/control/users", self.add_user),
            web.patch("/control/users/{user}", self.rename),
            web.post("/control/users/{user}/revoke", self.revoke_user),
            web.post("/control/users/{user}/end_access", self.end_access),
            web.get("/control/posts", self.posts),
            web.get("/control/media", self.media),
            web.post("/control/grants", self.seed_grants),
            web.post("/control/faults", self.add_fault),
            web.delete("/control/faults", self.clear_faults),
            web.get("/control/held", self.held),
            web.post("/control/release", self.release),
            web.get("/control/ledger", self.ledger),
            web.get("/control/requests", self.requests),
            web.delete("/control/requests", self.clear_requests),
            web.post("/control/reset", self.reset),
        ]

    async def add_client(self, request: web.Request) -> web.Response:
        app = App(**like(App, await request.json()))
        self._ledger.apps[app.client_id] = app
        return web.json_response({"client_id": app.client_id})

    async def change_settings(self, request: web.Request) -> web.Response:
        settings = only(await request.json(), {field.name for field in fields(Settings)})
        if settings.get("replay", "strict") not in ("strict", "grace"):
            raise web.HTTPBadRequest(text="replay: strict or grace")
        for name, value in settings.items():
            setattr(self._ledger.settings, name, value)
        return web.json_response(asdict(self._ledger.settings))

    async def users(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(user) for user in self._ledger.users.values()])

    async def add_user(self, request: web.Request) -> web.Response:
        facts = only(await request.json(), CHANGEABLE, needed=("username", "name"))
        if self._ledger.user_named(facts["username"]):
            raise web.HTTPConflict(text=f"there is a user {facts['username']} already")
        return web.json_response(asdict(self._ledger.add_user(**facts)))

    async def rename(self, request: web.Request) -> web.Response:
        user = self._user(request)
        for name, value in only(await request.json(), CHANGEABLE).items():
            setattr(user, name, value)
        return web.json_response(asdict(user))

    async def revoke_user(self, request: web.Request) -> web.Response:
        """What the user does in the platform's settings: every grant of the user ends."""
        user = self._user(request)
        mine = [grant for grant in self._ledger.grants.values() if grant.user_id == user.id and grant.alive]
        for grant in mine:
            self._ledger.kill(grant)
        return web.json_response({"revoked": len(mine)})

    async def end_access(self, request: web.Request) -> web.Response:
        """Ends the user's access tokens before their time; the grants stay."""
        user = self._user(request)
        mine = [grant for grant in self._ledger.grants.values() if grant.user_id == user.id and grant.alive]
        for grant in mine:
            self._ledger.end_access(grant)
        return web.json_response({"ended": len(mine)})

    async def posts(self, _: web.Request) -> web.Response:
        """Every post that is public, oldest first."""
        posts = self._ledger.posts.posts.values()
        return web.json_response(
            [{**asdict(post), "username": self._ledger.users[post.user_id].username} for post in posts]
        )

    async def media(self, _: web.Request) -> web.Response:
        return web.json_response([media.report() for media in self._ledger.posts.media.values()])

    async def seed_grants(self, request: web.Request) -> web.Response:
        """Grants of one user, with refresh tokens that are given: as many as a test needs, without a browser."""
        names = ("client_id", "username", "scope", "refresh_tokens")
        facts = only(await request.json(), names, needed=names)
        username = facts["username"]
        user = self._ledger.user_named(username) or self._ledger.add_user(username, username.capitalize())
        self._ledger.seed(facts["client_id"], user, facts["scope"], facts["refresh_tokens"])
        return web.json_response({"grants": len(self._ledger.grants)})

    async def add_fault(self, request: web.Request) -> web.Response:
        fault = Fault(**like(Fault, await request.json()))
        if objection := fault.objection():
            raise web.HTTPBadRequest(text=objection)
        self._faults.line.append(fault)
        return web.json_response({"in_line": len(self._faults.line)})

    async def clear_faults(self, _: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response({})

    async def held(self, request: web.Request) -> web.Response:
        """Answers when as many requests as `count` says are held."""
        await self._faults.until_held(int(request.query.get("count", "1")))
        return web.json_response({"held": self._faults.held})

    async def release(self, _: web.Request) -> web.Response:
        self._faults.release()
        return web.json_response({})

    async def ledger(self, _: web.Request) -> web.Response:
        return web.json_response(self._ledger.report())

    async def requests(self, _: web.Request) -> web.Response:
        return web.json_response(self._log)

    async def clear_requests(self, _: web.Request) -> web.Response:
        self._log.clear()
        return web.json_response({})

    async def reset(self, _: web.Request) -> web.Response:
        self._ledger.reset()
        self._faults.clear()
        self._log.clear()
        return web.json_response({})

    def _user(self, request: web.Request) -> User:
        """By id or by username."""
        name = request.match_info["user"]
        user = self._ledger.users.get(name) or self._ledger.user_named(name)
        if user is None:
            raise web.HTTPNotFound(text=f"no user {name}")
        return user


def like(kind: type, body: Any) -> dict[str, Any]:
    """The body, if it has what a `kind` is made of. Raises HTTPBadRequest."""
    needed = [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    return only(body, [each.name for each in fields(kind)], needed)


def only(body: Any, known: Iterable[str], needed: Iterable[str] = ()) -> dict[str, Any]:
    """The body, if it is an object with only known members and all that are needed. Raises HTTPBadRequest."""
    if not isinstance(body, dict) or not set(needed) <= set(body) <= set(known):
        raise web.HTTPBadRequest(text=f"known: {', '.join(sorted(known))}; needed: {', '.join(sorted(needed)) or '-'}")
    return body
