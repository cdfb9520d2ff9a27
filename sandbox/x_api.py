"""X's API, as the sandbox plays it: posts, media and rate limits, for whoever brings a live access token."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from sandbox.api import Api, Serve, json_object
from sandbox.ledger import Grant
from sandbox.posts import Media, Post
from sandbox.x import NOT_AUTHORIZED, bearer, problem

LONGEST_TEXT = 280
READ = ("tweet.read", "users.read")
POST = ("tweet.read", "tweet.write", "users.read")
UPLOAD = ("media.write",)


class XApi(Api):
    """The endpoints that apps call for users."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/2/tweets", self.serving("post", POST, self.post)),
            web.get("/2/tweets", self.serving("read", READ, self.look_up), allow_head=False),
            web.get("/2/tweets/{id}", self.serving("read", READ, self.read), allow_head=False),
            web.delete("/2/tweets/{id}", self.serving("delete", POST, self.delete)),
            web.get("/2/users/{id}/tweets", self.serving("read", READ, self.timeline), allow_head=False),
            web.post("/2/media/upload", self.serving("media", UPLOAD, self.upload)),
            web.get("/2/media/upload", self.serving("media", UPLOAD, self.upload_status), allow_head=False),
            web.post("/2/media/upload/initialize", self.serving("media", UPLOAD, self.initialize)),
            web.post("/2/media/upload/{id}/append", self.serving("media", UPLOAD, self.append)),
            web.post("/2/media/upload/{id}/finalize", self.serving("media", UPLOAD, self.finalize)),
        ]

    async def admitted(self, request: web.Request, place: str, scopes: tuple[str, ...], serve: Serve) -> web.Response:
        grant = self._ledger.live_access(bearer(request))
        if grant is None:
            return problem(401, "Unauthorized", "about:blank")
        if not set(scopes) <= set(grant.scope.split()):
            return problem(403, "Forbidden", NOT_AUTHORIZED)
        settings = self._ledger.settings
        within, window = self._ledger.posts.count(
            grant.user_id, place, settings.requests_a_window, settings.window_seconds
        )
        response = await serve(request, grant) if within else problem(429, "Too Many Requests", "about:blank")
        response.headers.update(window.headers())
        return response

    # --- posts

    async def post(self, request: web.Request, grant: Grant) -> web.Response:
        body = await json_object(request)
        text, media_ids = body.get("text", ""), (body.get("media") or {}).get("media_ids", [])
        if not isinstance(text, str) or len(text) > LONGEST_TEXT or not (text or media_ids):
            return invalid(f"text: required without media, at most {LONGEST_TEXT} characters")
        if not all(self._is_ready(media_id, grant) for media_id in media_ids):
            return invalid("Your media IDs are invalid.")
        post = self._ledger.posts.add(grant.user_id, "twitter", text, media_ids)
        data = {"id": post.id, "text": post.text, "edit_history_tweet_ids": [post.id]}
        return web.json_response({"data": data}, status=201)

    async def look_up(self, request: web.Request, _: Grant) -> web.Response:
        asked = [each for each in request.query.get("ids", "").split(",") if each]
        if not 1 <= len(asked) <= 100:
            return invalid("ids: 1 to 100 of them, with commas")
        found = {each: self._ledger.posts.posts[each] for each in asked if each in self._ledger.posts.posts}
        missing = [{"title": "Not Found Error", "value": each} for each in asked if each not in found]
        answer = listed(found.values(), request.query) | ({"errors": missing} if missing else {})
        return web.json_response(answer)

    async def read(self, request: web.Request, _: Grant) -> web.Response:
        post = self._ledger.posts.posts.get(request.match_info["id"])
        return not_found() if post is None else web.json_response({"data": told(post, request.query)})

    async def delete(self, request: web.Request, grant: Grant) -> web.Response:
        post = self._ledger.posts.posts.get(request.match_info["id"])
        if post is None:
            return not_found()
        if post.user_id != grant.user_id:
            return problem(403, "Forbidden", NOT_AUTHORIZED)
        del self._ledger.posts.posts[post.id]
        return web.json_response({"data": {"deleted": True}})

    async def timeline(self, request: web.Request, _: Grant) -> web.Response:
        """The user's posts, the newest first; `pagination_token` is the id of the last one seen."""
        size, after = int(request.query.get("max_results", "10")), request.query.get("pagination_token", "")
        posts = [post for post in self._ledger.posts.of(request.match_info["id"]) if not after or post.id < after]
        page = posts[:size]
        meta: dict[str, Any] = {"result_count": len(page)}
        if len(posts) > size:
            meta["next_token"] = page[-1].id
        return web.json_response(listed(page, request.query) | {"meta": meta})

    # --- media

    async def upload(self, request: web.Request, grant: Grant) -> web.Response:
        """Whole, in one request."""
        facts, content = await media_of(request)
        if not content:
            return invalid("media: required")
        media = self._ledger.posts.upload(grant.user_id, facts.get("media_type", ""), len(content))
        media.segments[0], media.ready = content, True
        return uploaded(media)

    async def initialize(self, request: web.Request, grant: Grant) -> web.Response:
        body = await json_object(request)
        if not isinstance(body.get("total_bytes"), int) or not isinstance(body.get("media_type"), str):
            return invalid("media_type, total_bytes: required")
        return uploaded(self._ledger.posts.upload(grant.user_id, body["media_type"], body["total_bytes"]))

    async def append(self, request: web.Request, grant: Grant) -> web.Response:
        media = self._media(request.match_info["id"], grant)
        facts, content = await media_of(request)
        if media is None or media.ready:
            return not_found()
        index = str(facts.get("segment_index", ""))
        if not content or not index.isdecimal() or int(index) > 999:
            return invalid("media, segment_index: required")
        media.segments[int(index)] = content
        return web.json_response({"data": {"expires_at": 86_400}})

    async def finalize(self, request: web.Request, grant: Grant) -> web.Response:
        media = self._media(request.match_info["id"], grant)
        if media is None:
            return not_found()
        if len(media.content) != media.total_bytes:
            return invalid(f"{len(media.content)} bytes came; {media.total_bytes} were announced")
        media.ready = True
        return uploaded(media)

    async def upload_status(self, request: web.Request, grant: Grant) -> web.Response:
        media = self._media(request.query.get("media_id", ""), grant)
        return not_found() if media is None else uploaded(media)

    def _media(self, media_id: str, grant: Grant) -> Media | None:
        media = self._ledger.posts.media.get(media_id)
        return media if media is not None and media.user_id == grant.user_id else None

    def _is_ready(self, media_id: str, grant: Grant) -> bool:
        media = self._media(media_id, grant)
        return media is not None and media.ready


async def media_of(request: web.Request) -> tuple[Mapping[str, Any], bytes]:
    """The facts and the bytes of an upload: a multipart form, or JSON with base64."""
    if request.content_type != "application/json":
        form = await request.post()
        media = form.get("media")
        return dict(form), media.file.read() if isinstance(media, web.FileField) else b""
    body = await json_object(request)
    try:
        return body, base64.b64decode(body.get("media", ""), validate=True)
    except (TypeError, binascii.Error):
        return body, b""


def listed(posts: Iterable[Post], query: Mapping[str, str]) -> dict[str, Any]:
    """Of no posts X says nothing: there is no empty list in its answers."""
    data = [told(post, query) for post in posts]
    return {"data": data} if data else {}


def told(post: Post, query: Mapping[str, str]) -> dict[str, Any]:
    """A post as readers get it, with what `tweet.fields` asks for; the figures are pretended."""
    found: dict[str, Any] = {"id": post.id, "text": post.text, "edit_history_tweet_ids": [post.id]}
    fields = query.get("tweet.fields", "").split(",")
    if "author_id" in fields:
        found["author_id"] = post.user_id
    if "public_metrics" in fields:
        seen = 100 + len(post.text)
        found["public_metrics"] = {"impression_count": seen, "like_count": seen // 10, "retweet_count": seen // 50}
    return found


def uploaded(media: Media) -> web.Response:
    data = {"id": media.id, "media_key": f"3_{media.id}", "size": len(media.content), "expires_after_secs": 86_400}
    return web.json_response({"data": data})


def invalid(detail: str) -> web.Response:
    return problem(400, "Invalid Request", "https://api.twitter.com/2/problems/invalid-request", detail)


def not_found() -> web.Response:
    return problem(404, "Not Found Error", "https://api.twitter.com/2/problems/resource-not-found")
