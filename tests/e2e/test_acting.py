"""Acting from end to end: a real client and server, and platforms that count what they have taken."""

import asyncio
import hashlib
from datetime import timedelta

import aiohttp
import pytest
from synposter_accounts import (
    Account,
    AccountExpired,
    AccountRevoked,
    AccountStatus,
    Answer,
    CallerNotPermitted,
    MissingScope,
    OutcomeUnknown,
    PlatformUnavailable,
    RateLimited,
    Usage,
)

from sandbox.ports import free_port
from tests.e2e.conftest import PROFILE, Whole

MIB = 1024 * 1024
MEDIA = ("tweet.read", "tweet.write", "users.read", "offline.access", "media.write")


async def post(whole: Whole, account: Account, text: str = "hello", **sent: object) -> Answer:
    return await whole.accounts.call(account.id, "POST", "/2/tweets", json={"text": text}, **sent)  # type: ignore[arg-type]


async def texts(whole: Whole) -> list[str]:
    """What the platform has taken."""
    return [each["text"] for each in await whole.sandbox.posts()]


async def used(whole: Whole, account: Account) -> list[Usage]:
    """The newest first; how a use ended is written beside the call."""
    await whole.app.actor.drain()
    return [use async for use in whole.accounts.list_usage(account.id)]


async def outcomes(whole: Whole, endpoint: str = "post") -> list[str]:
    """How the platform answered each request that reached it."""
    return [each["outcome"] for each in await whole.sandbox.requests(endpoint)]


async def connected_a_while_ago(whole: Whole) -> Account:
    """A token that is younger than `[refresh] min_interval` is not refreshed, whatever the platform says of it."""
    account = await whole.connect()
    whole.clock.offset += timedelta(minutes=2)
    return account


async def test_a_caller_posts_reads_and_deletes_and_its_use_is_listed(whole: Whole) -> None:
    account = await whole.connect()
    answer = await post(whole, account)
    assert (answer.status_code, answer.json()["data"]["text"]) == (201, "hello")
    assert answer.rate_limit is not None and (answer.rate_limit.limit, answer.rate_limit.remaining) == (100, 99)
    assert await texts(whole) == ["hello"]
    post_id = answer.json()["data"]["id"]
    read = await whole.accounts.call(account.id, "GET", f"/2/tweets/{post_id}", query={"tweet.fields": "author_id"})
    assert read.json()["data"]["author_id"] == account.platform_user_id
    assert (await whole.accounts.call(account.id, "DELETE", f"/2/tweets/{post_id}")).ok
    gone = await whole.accounts.call(account.id, "GET", f"/2/tweets/{post_id}")
    assert (gone.status_code, gone.ok) == (404, False)
    uses = await used(whole, account)
    assert uses == [use async for use in whole.accounts.list_usage(profile_id=PROFILE, page_size=2)]
    assert {(use.method, use.route, use.result, use.status_code) for use in uses} == {
        ("POST", "/2/tweets", "sent", 0),
        ("GET", "/2/tweets/{id}", "sent", 0),
        ("DELETE", "/2/tweets/{id}", "sent", 0),
        ("GET", "/2/tweets/{id}", "answered", 404),
    }
    assert {use.caller for use in uses} == {"local"}


async def test_an_access_token_that_has_ended_is_refreshed_before_the_post(whole: Whole) -> None:
    account = await whole.connect()
    await whole.sandbox.end_access("ada")
    whole.clock.offset += timedelta(hours=2, minutes=1)
    assert (await post(whole, account)).status_code == 201
    assert await outcomes(whole) == ["201"], "the dead token was sent"
    assert (await whole.accounts.get(account.id)).last_refresh_time is not None


async def test_a_401_leads_to_one_refresh_and_one_post(whole: Whole) -> None:
    account = await connected_a_while_ago(whole)
    await whole.sandbox.end_access("ada")
    assert (await post(whole, account)).status_code == 201
    assert await outcomes(whole) == ["401", "201"]
    refreshes = [each for each in await whole.sandbox.requests("token") if each["grant_type"] == "refresh_token"]
    assert (len(refreshes), await texts(whole)) == (1, ["hello"])


async def test_many_posts_that_meet_a_dead_token_share_one_refresh(whole: Whole) -> None:
    account = await connected_a_while_ago(whole)
    await whole.sandbox.end_access("ada")
    answers = await asyncio.gather(*(post(whole, account, str(number)) for number in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert sorted(await texts(whole), key=int) == [str(number) for number in range(20)]
    refreshes = [each for each in await whole.sandbox.requests("token") if each["grant_type"] == "refresh_token"]
    assert len(refreshes) == 1


@pytest.mark.parametrize("fault", ["drop_after", "cut_after", "hang_after"])
async def test_a_post_whose_answer_is_lost_is_made_once_and_told_as_unknown(whole: Whole, fault: str) -> None:
    account = await whole.connect()
    await whole.sandbox.fault("post", fault)
    with pytest.raises(OutcomeUnknown) as told:
        await post(whole, account, timeout=1.0)
    assert told.value.may_have_been_done
    assert (await texts(whole), len(await outcomes(whole))) == (["hello"], 1)
    ended, sent = await used(whole, account)
    assert (sent.result, ended.result) == ("sent", "unknown")
    assert sent.use_id == ended.use_id == told.value.metadata["use_id"]


async def test_a_post_that_was_lost_on_its_way_is_told_as_unknown_too(whole: Whole) -> None:
    account = await whole.connect()
    await whole.sandbox.fault("post", "drop_before")
    with pytest.raises(OutcomeUnknown):
        await post(whole, account)
    assert (await texts(whole), len(await outcomes(whole))) == ([], 1)


async def test_a_post_that_cannot_be_sent_is_known_not_to_be_made(whole: Whole) -> None:
    account = await whole.connect()
    api = whole.app.apis["twitter"]
    api.base = type(api.base)("http", "127.0.0.1", free_port())
    with pytest.raises(PlatformUnavailable) as told:
        await post(whole, account)
    assert not told.value.may_have_been_done
    ended, sent = await used(whole, account)
    assert (sent.result, ended.result) == ("sent", "not_sent")


async def test_a_bad_hour_of_the_platform_is_an_answer(whole: Whole) -> None:
    account = await whole.connect()
    await whole.sandbox.fault("post", "status_before", status=503, retry_after=7)
    answer = await post(whole, account)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert await outcomes(whole) == ["received"], "it was sent again"


async def test_a_used_up_limit_is_told_without_a_request_to_who_asks_for_that(whole: Whole) -> None:
    await whole.sandbox.settings(requests_a_window=1)
    ada, grace = await whole.connect("ada"), await whole.connect("grace")
    first = await post(whole, ada)
    assert first.rate_limit is not None and first.rate_limit.remaining == 0
    with pytest.raises(RateLimited) as told:
        await post(whole, ada, refuse_if_limited=True)
    assert told.value.metadata["limit"] == "platform"
    assert told.value.retry_after is not None and timedelta() < told.value.retry_after <= timedelta(seconds=901)
    assert await outcomes(whole) == ["201"]
    assert (await post(whole, grace, refuse_if_limited=True)).status_code == 201
    asked = await post(whole, ada)
    assert (asked.status_code, asked.rate_limit and asked.rate_limit.remaining) == (429, 0)
    assert await texts(whole) == ["hello", "hello"]
    whole.clock.offset += timedelta(minutes=16)
    assert (await post(whole, ada, refuse_if_limited=True)).status_code == 429, "it would have been worth asking again"


async def test_five_mebibytes_go_up_whole_and_in_segments(whole: Whole) -> None:
    account = await whole.connect(scopes=MEDIA)
    content = bytes(range(256)) * 4 * 1024 * 5
    whole_one = await upload(whole, account, "/2/media/upload", content)
    announced = {"media_type": "video/mp4", "total_bytes": len(content)}
    begun = await whole.accounts.call(account.id, "POST", "/2/media/upload/initialize", json=announced)
    in_segments = begun.json()["data"]["id"]
    for index in range(5):
        part = content[index * MIB : (index + 1) * MIB]
        await upload(whole, account, f"/2/media/upload/{in_segments}/append", part, segment_index=str(index))
    assert (await whole.accounts.call(account.id, "POST", f"/2/media/upload/{in_segments}/finalize")).ok
    media = {"media_ids": [whole_one.json()["data"]["id"], in_segments]}
    answer = await whole.accounts.call(account.id, "POST", "/2/tweets", json={"text": "look", "media": media})
    assert answer.status_code == 201
    arrived = [(each["sha256"], each["segments"]) for each in await whole.sandbox.media()]
    assert arrived == [(hashlib.sha256(content).hexdigest(), 1), (hashlib.sha256(content).hexdigest(), 5)]


async def upload(whole: Whole, account: Account, path: str, content: bytes, **fields: str) -> Answer:
    """A multipart form, as X wants it."""
    form = aiohttp.MultipartWriter("form-data", boundary="synposter")
    for name, value in fields.items():
        form.append(value).set_content_disposition("form-data", name=name)
    form.append(content).set_content_disposition("form-data", name="media", filename="media")
    answer = await whole.accounts.call(
        account.id, "POST", path, body=await form.as_bytes(), content_type=form.content_type
    )
    assert answer.ok, answer.body
    return answer


async def test_what_the_user_did_not_grant_is_refused_before_anything_is_sent_and_can_be_mended(whole: Whole) -> None:
    account = await whole.connect()
    with pytest.raises(MissingScope) as told:
        await whole.accounts.call(account.id, "POST", "/2/media/upload", body=b"x", content_type="image/png")
    assert told.value.metadata["scopes"] == "media.write"
    assert await whole.sandbox.requests("media") == []
    assert told.value.reconnect is not None and told.value.reconnect["account_id"] == account.id
    again = await whole.connect(account_id=account.id, scopes=told.value.reconnect["scopes"])
    assert (again.id, "media.write" in again.scopes) == (account.id, True)
    await upload(whole, again, "/2/media/upload", b"a picture")


async def test_an_account_whose_user_took_it_back_expires_at_the_first_call_and_says_how_to_mend_it(
    whole: Whole,
) -> None:
    account = await connected_a_while_ago(whole)
    await whole.sandbox.revoke_user("ada")
    with pytest.raises(AccountExpired) as told:
        await post(whole, account)
    assert told.value.metadata["status_reason"] == "REFRESH_REJECTED"
    assert (await whole.accounts.get(account.id)).status is AccountStatus.EXPIRED
    assert await outcomes(whole) == ["401"]
    with pytest.raises(AccountExpired):
        await post(whole, account)
    assert await outcomes(whole) == ["401"], "an expired account's token was sent"
    assert told.value.reconnect is not None
    begun = await whole.accounts.begin_connect(**told.value.reconnect, return_url=whole.return_url)
    assert begun.authorization_url
    again = await whole.connect(account_id=account.id)
    assert (await post(whole, again)).status_code == 201


async def test_a_revoked_account_is_refused_before_anything_is_sent(whole: Whole) -> None:
    account = await whole.connect()
    await whole.accounts.revoke(account.id)
    with pytest.raises(AccountRevoked):
        await post(whole, account)
    assert await outcomes(whole) == []


async def test_what_is_not_among_the_callers_routes_is_refused(whole: Whole) -> None:
    account = await whole.connect()
    with pytest.raises(CallerNotPermitted) as told:
        await whole.accounts.call(account.id, "GET", "/2/dm_events")
    assert told.value.metadata["field"] == "path"


async def test_a_linkedin_account_posts_and_one_without_the_scope_is_refused(whole: Whole) -> None:
    account = await whole.connect(platform="linkedin")
    share = {
        "author": f"urn:li:person:{account.platform_user_id}", "commentary": "hello", "visibility": "PUBLIC",
        "distribution": {"feedDistribution": "MAIN_FEED"}, "lifecycleState": "PUBLISHED",
    }  # fmt: skip
    headers = {"linkedin-version": "202610", "x-restli-protocol-version": "2.0.0"}
    answer = await whole.accounts.call(account.id, "POST", "/rest/posts", headers=headers, json=share)
    assert answer.status_code == 201
    [taken] = await whole.sandbox.posts()
    assert answer.headers["x-restli-id"] == f"urn:li:share:{taken['id']}"
    path = f"/rest/posts/{answer.headers['x-restli-id']}"
    assert (await whole.accounts.call(account.id, "DELETE", path, headers=headers)).status_code == 204
    assert await texts(whole) == []
    other = await whole.connect("grace", platform="linkedin", grant_scope="openid profile")
    with pytest.raises(MissingScope):
        await whole.accounts.call(other.id, "POST", "/rest/posts", headers=headers, json=share)
    assert len(await outcomes(whole)) == 1
