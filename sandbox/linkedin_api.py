"""LinkedIn's posts, as the sandbox plays them: a version header, URNs, and the new post's id in a header."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from sandbox.api import Api, Serve, json_object
from sandbox.ledger import Grant
from sandbox.x import bearer

POST = ("w_member_social",)
VERSION = re.compile(r"20\d{2}(0[1-9]|1[0-2])\Z")
SHARE = "urn:li:share:"


class LinkedInApi(Api):
    """The endpoints that apps call for members."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/rest/posts", self.serving("post", POST, self.post)),
            web.delete("/rest/posts/{urn}", self.serving("delete", POST, self.delete)),
        ]

    async def admitted(self, request: web.Request, place: str, scopes: tuple[str, ...], serve: Serve) -> web.Response:
        grant = self._ledger.live_access(bearer(request))
        if grant is None:
            return refused(401, "INVALID_ACCESS_TOKEN", "Invalid access token", 65600)
        if not set(scopes) <= set(re.split("[ ,]", grant.scope)):
            return refused(403, "ACCESS_DENIED", "Not enough permissions to access: posts.CREATE", 100)
        if not VERSION.match(request.headers.get("LinkedIn-Version", "")):
            return refused(400, "VERSION_MISSING", "A version must be present in the header LinkedIn-Version")
        return await serve(request, grant)

    async def post(self, request: web.Request, grant: Grant) -> web.Response:
        body = await json_object(request)
        if body.get("author") != f"urn:li:person:li-{grant.user_id}":
            return refused(403, "ACCESS_DENIED", "Field Value validation failed in REQUEST_BODY: author")
        if not isinstance(body.get("commentary"), str) or body.get("lifecycleState") != "PUBLISHED":
            return refused(422, "MISSING_FIELD", "commentary, lifecycleState: required")
        post = self._ledger.posts.add(grant.user_id, "linkedin", body["commentary"])
        return web.Response(status=201, headers={"x-restli-id": SHARE + post.id})

    async def delete(self, request: web.Request, grant: Grant) -> web.Response:
        post_id = request.match_info["urn"].removeprefix(SHARE)
        post = self._ledger.posts.posts.get(post_id)
        if post is not None and post.user_id == grant.user_id:
            del self._ledger.posts.posts[post_id]
        return web.Response(status=204)  # LinkedIn says so again for what is gone already


def refused(status: int, code: str, message: str, number: int | None = None) -> web.Response:
    body: dict[str, Any] = {"status": status, "code": code, "message": message}
    return web.json_response(body if number is None else {**body, "serviceErrorCode": number}, status=status)
