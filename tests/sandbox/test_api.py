"""The sandbox plays the APIs of X and LinkedIn: posts, media and rate limits, over real HTTP."""

import hashlib
import time
from typing import Any

import aiohttp
import pytest

from tests.sandbox.conftest import SCOPES, RegisteredApp

WRITING = f"{SCOPES} tweet.write media.write"
MIB = 1024 * 1024


async def token_of(app: RegisteredApp, scope: str = WRITING) -> str:
    code = await app.code(grant_scope=scope)
    return str((await app.exchange(code))[1]["access_token"])


async def ask(app: RegisteredApp, token: str, method: str, path: str, **sent: Any) -> tuple[int, Any, Any]:
    """Status, body and headers."""
    headers = {"Authorization": f"Bearer {token}", **sent.pop("headers", {})}
    async with app.http.request(method, app.control.url + path, headers=headers, **sent) as response:
        body = await response.json(content_type=None) if await response.read() else None
        return response.status, body, response.headers


async def test_a_post_is_taken_read_and_deleted(app: RegisteredApp) -> None:
    token = await token_of(app)
    status, body, _ = await ask(app, token, "POST", "/2/tweets", json={"text": "hello"})
    assert status == 201 and body["data"]["text"] == "hello"
    post_id = body["data"]["id"]
    [post] = await app.control.posts()
    assert (post["id"], post["username"], post["platform"], post["text"]) == (post_id, "ada", "twitter", "hello")
    status, body, _ = await ask(app, token, "GET", f"/2/tweets?ids={post_id},1&tweet.fields=author_id,public_metrics")
    assert status == 200 and body["errors"][0]["value"] == "1"
    assert body["data"][0]["author_id"] == post["user_id"] and body["data"][0]["public_metrics"]["impression_count"]
    assert (await ask(app, token, "DELETE", f"/2/tweets/{post_id}"))[:2] == (200, {"data": {"deleted": True}})
    assert (await ask(app, token, "GET", f"/2/tweets/{post_id}"))[0] == 404
    assert await app.control.posts() == []


async def test_an_empty_list_of_posts_is_left_out(app: RegisteredApp) -> None:
    token = await token_of(app)
    assert (await ask(app, token, "GET", "/2/users/1/tweets"))[:2] == (200, {"meta": {"result_count": 0}})
    assert set((await ask(app, token, "GET", "/2/tweets?ids=1"))[1]) == {"errors"}


async def test_a_timeline_comes_in_pages_the_newest_first(app: RegisteredApp) -> None:
    token = await token_of(app)
    for number in range(5):
        await ask(app, token, "POST", "/2/tweets", json={"text": str(number)})
    [user] = {post["user_id"] for post in await app.control.posts()}
    seen, more = [], ""
    while True:
        _, page, _ = await ask(app, token, "GET", f"/2/users/{user}/tweets?max_results=2{more}")
        seen += [post["text"] for post in page["data"]]
        if "next_token" not in page["meta"]:
            break
        more = f"&pagination_token={page['meta']['next_token']}"
    assert seen == ["4", "3", "2", "1", "0"]


@pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": "x" * 281}, {"text": 7}, {"media": {"media_ids": ["1"]}}])
async def test_what_is_no_post_is_refused(app: RegisteredApp, body: dict[str, Any]) -> None:
    status, problem, _ = await ask(app, await token_of(app), "POST", "/2/tweets", json=body)
    assert status == 400 and problem["type"].endswith("/invalid-request")
    assert await app.control.posts() == []


async def test_a_dead_or_ended_token_gets_401_and_a_missing_scope_403(app: RegisteredApp) -> None:
    post = {"json": {"text": "hello"}}
    assert (await ask(app, "nobody's", "POST", "/2/tweets", **post))[0] == 401
    assert (await ask(app, await token_of(app, SCOPES), "POST", "/2/tweets", **post))[0] == 403
    granted = (await app.exchange(await app.code(grant_scope=WRITING)))[1]
    await app.control.end_access("ada")
    assert (await ask(app, granted["access_token"], "POST", "/2/tweets", **post))[0] == 401
    refreshed = (await app.refresh(granted["refresh_token"]))[1]
    assert (await ask(app, refreshed["access_token"], "POST", "/2/tweets", **post))[0] == 201
    await app.control.revoke_user("ada")
    assert (await ask(app, refreshed["access_token"], "POST", "/2/tweets", **post))[0] == 401
    assert len(await app.control.posts()) == 1


async def test_each_user_has_a_window_for_each_endpoint(app: RegisteredApp) -> None:
    await app.control.settings(requests_a_window=2, window_seconds=60)
    token = await token_of(app)
    told = [await ask(app, token, "POST", "/2/tweets", json={"text": "x"}) for _ in range(3)]
    assert [status for status, _, _ in told] == [201, 201, 429]
    assert [headers["x-rate-limit-remaining"] for _, _, headers in told] == ["1", "0", "0"]
    assert {headers["x-rate-limit-limit"] for _, _, headers in told} == {"2"}
    assert 0 < int(told[2][2]["x-rate-limit-reset"]) - time.time() <= 61
    assert (await ask(app, token, "GET", "/2/tweets?ids=1"))[0] == 200
    assert len(await app.control.posts()) == 2


async def test_media_comes_whole_or_in_segments_and_goes_with_a_post(app: RegisteredApp) -> None:
    token, content = await token_of(app), bytes(range(256)) * 4 * 1024 * 5
    form = aiohttp.FormData()
    form.add_field("media", content, filename="photo.png", content_type="image/png")
    status, whole, _ = await ask(app, token, "POST", "/2/media/upload", data=form)
    assert status == 200
    announced = {"media_type": "video/mp4", "total_bytes": len(content)}
    _, begun, _ = await ask(app, token, "POST", "/2/media/upload/initialize", json=announced)
    path = f"/2/media/upload/{begun['data']['id']}"
    post = {"text": "look", "media": {"media_ids": [whole["data"]["id"], begun["data"]["id"]]}}
    for index in (1, 0, 2, 3, 4):
        form = aiohttp.FormData({"segment_index": str(index)})
        form.add_field("media", content[index * MIB : (index + 1) * MIB], filename="part")
        assert (await ask(app, token, "POST", f"{path}/append", data=form))[0] == 200
    assert (await ask(app, token, "POST", "/2/tweets", json=post))[0] == 400
    assert (await ask(app, token, "POST", f"{path}/finalize"))[0] == 200
    assert (await ask(app, token, "POST", "/2/tweets", json=post))[0] == 201
    assert {each["sha256"] for each in await app.control.media()} == {hashlib.sha256(content).hexdigest()}


async def test_an_upload_that_is_not_whole_is_not_finalized(app: RegisteredApp) -> None:
    token = await token_of(app)
    announced = {"media_type": "video/mp4", "total_bytes": 9}
    _, begun, _ = await ask(app, token, "POST", "/2/media/upload/initialize", json=announced)
    path = f"/2/media/upload/{begun['data']['id']}"
    await ask(app, token, "POST", f"{path}/append", json={"media": "AAAA", "segment_index": 0})
    assert (await ask(app, token, "POST", f"{path}/finalize"))[0] == 400


async def test_a_post_is_taken_before_the_answer_is_lost_and_not_before_a_request_is(app: RegisteredApp) -> None:
    token = await token_of(app)
    for fault, taken in (("drop_before", 0), ("drop_after", 1), ("cut_after", 2), ("html_after", 3)):
        await app.control.fault("post", fault)
        try:
            status, _, _ = await ask(app, token, "POST", "/2/tweets", json={"text": fault})
        except (aiohttp.ClientError, ValueError):
            status = 0
        assert status in (0, 200)
        assert len(await app.control.posts()) == taken, fault


async def test_linkedin_wants_its_version_header_and_tells_the_new_post_in_a_header(app: RegisteredApp) -> None:
    token = await token_of(app, "openid profile w_member_social")
    users = {user["username"]: user["id"] for user in await app.control.users()}
    post = {"author": f"urn:li:person:li-{users['ada']}", "commentary": "hello", "lifecycleState": "PUBLISHED"}
    version = {"headers": {"LinkedIn-Version": "202610"}}
    assert (await ask(app, token, "POST", "/rest/posts", json=post))[0] == 400
    assert (await ask(app, token, "POST", "/rest/posts", json={**post, "author": "urn:li:person:1"}, **version))[
        0
    ] == 403
    other = await token_of(app, "openid profile")
    assert (await ask(app, other, "POST", "/rest/posts", json=post, **version))[0] == 403
    status, body, headers = await ask(app, token, "POST", "/rest/posts", json=post, **version)
    assert (status, body) == (201, None)
    [taken] = await app.control.posts()
    assert headers["x-restli-id"] == f"urn:li:share:{taken['id']}" and taken["platform"] == "linkedin"
    assert (await ask(app, token, "DELETE", f"/rest/posts/urn%3Ali%3Ashare%3A{taken['id']}", **version))[0] == 204
    assert await app.control.posts() == []
