"""Before anything is sent: accounts that cannot be used, missing scopes, limits that are used up; and usage told."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from synposter.accounts.v1 import platform_service_pb2 as pb
from synposter.accounts.v1.account_service_pb2 import BeginConnectRequest

from server.accounts.events import USES, EventFilter
from tests.e2e.conftest import PROFILE, browse
from tests.moulds import cast_postgres
from tests.platforms.peer import http, says
from tests.rpc.conftest import bearer, refusal_of
from tests.security.acting import Acting, acting


@pytest.fixture(params=["sqlite", "postgres"])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Acting]:
    url = cast_postgres(request.getfixturevalue("postgres")) if request.param == "postgres" else None
    async with acting(tmp_path, database_url=url) as service:
        yield service


def hint(refusal) -> BeginConnectRequest:
    """The request in the details of a refusal that begins to mend the account."""
    request = BeginConnectRequest()
    [found] = [detail for detail in refusal.status.details if detail.Is(request.DESCRIPTOR)]
    found.Unpack(request)
    return request


async def connected_again(service: Acting, request: BeginConnectRequest) -> str:
    """Sends the hint as it is, with the caller's return URL, and plays the user; the account's id."""
    whole = service.whole
    begun = await whole.accounts.begin_connect(
        request.profile_id,
        request.platform,
        scopes=list(request.scopes),
        account_id=request.account_id,
        return_url=whole.return_url,
    )
    back = await browse(await whole.sandbox.consent(begun.authorization_url, "ada"))
    [account] = await whole.accounts.complete_connect(request.profile_id, completion_code=back["completion_code"])
    return account.id


async def test_an_expired_account_is_refused_with_the_request_that_mends_it(service: Acting) -> None:
    await service.whole.sandbox.revoke_user("ada")
    await service.whole.refresh_due()
    refusal = await service.refusal()
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ACCOUNT_EXPIRED")
    assert refusal.facts == {"account_id": service.account.id, "status_reason": "REFRESH_REJECTED"}
    assert service.peer.connections == 0
    assert await connected_again(service, hint(refusal)) == service.account.id
    assert (await service.call()).status_code == 200


async def test_a_missing_scope_is_refused_before_anything_is_sent_and_the_hint_asks_for_it(service: Acting) -> None:
    whole = service.whole
    begun = await whole.accounts.begin_connect(PROFILE, "twitter", scopes=["tweet.read"], return_url=whole.return_url)
    back = await browse(await whole.sandbox.consent(begun.authorization_url, "ada"))
    [account] = await whole.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    post = {"account_id": account.id, "method": "POST", "path": "/2/tweets", "content_type": "a/b", "body": b"x"}
    refusal = await service.refusal(**post)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MISSING_SCOPE")
    assert refusal.facts == {"account_id": account.id, "scopes": "tweet.write"}
    assert service.peer.connections == 0
    await connected_again(service, hint(refusal))
    assert (await service.call(**post)).status_code == 200


async def test_a_revoked_account_is_refused_from_that_instant_on(service: Acting) -> None:
    await service.whole.accounts.revoke(service.account.id)
    refusal = await service.refusal()
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ACCOUNT_REVOKED")
    assert service.peer.connections == 0


async def test_a_paused_platform_is_sent_nothing(service: Acting) -> None:
    app = service.whole.app
    await app.store.set_pause("twitter", reason="incident 9", operator="ada")
    await app.pauses.follow()
    refusal = await service.refusal()
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PLATFORM_PAUSED")
    assert service.peer.connections == 0


@pytest.mark.parametrize(("lives", "refreshes"), [(timedelta(seconds=50), 1), (timedelta(seconds=70), 0)])
async def test_a_token_that_ends_within_a_minute_is_refreshed_first(
    tmp_path: Path, lives: timedelta, refreshes: int
) -> None:
    async with acting(tmp_path) as service:
        service.whole.clock.offset += timedelta(hours=2) - lives
        assert (await service.call()).status_code == 200
        [grant] = await service.whole.sandbox.ledger()
        assert grant["refreshes"] == refreshes
        assert (await service.token()).encode() in service.peer.received[0]


async def test_a_caller_says_for_how_long_the_token_must_live(tmp_path: Path) -> None:
    async with acting(tmp_path) as service:
        service.whole.clock.offset += timedelta(minutes=30)
        await service.call(min_remaining_lifetime=Duration(seconds=3600))
        assert [grant["refreshes"] for grant in await service.whole.sandbox.ledger()] == [0]
        await service.call(min_remaining_lifetime=Duration(seconds=2 * 3600 - 60))
        assert [grant["refreshes"] for grant in await service.whole.sandbox.ledger()] == [1]


async def test_who_may_not_refresh_cannot_force_a_refresh_by_what_it_asks_of_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCOUNTS_CALLERS__LOCAL__PERMISSIONS", '["connect", "read", "act"]')
    async with acting(tmp_path) as service:
        service.whole.clock.offset += timedelta(minutes=30)
        refusal = await service.refusal(min_remaining_lifetime=Duration(seconds=901))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_PERMITTED")
        assert refusal.facts == {"permission": "refresh", "field": "min_remaining_lifetime"}
        assert (await service.call(min_remaining_lifetime=Duration(seconds=900))).status_code == 200
        assert [grant["refreshes"] for grant in await service.whole.sandbox.ledger()] == [0]
        service.whole.clock.offset += timedelta(minutes=76)
        assert (await service.call(min_remaining_lifetime=Duration(seconds=900))).status_code == 200
        assert [grant["refreshes"] for grant in await service.whole.sandbox.ledger()] == [1]


async def test_a_call_whose_token_is_not_refreshed_in_time_sends_nothing(tmp_path: Path) -> None:
    async with acting(tmp_path) as service:
        service.whole.clock.offset += timedelta(hours=3)
        await service.whole.sandbox.fault("token", "hold_before", times=-1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.post(timeout=0.6)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "nothing was sent" in str(caught.value.details())
        await service.whole.sandbox.clear_faults()
        await service.whole.app.refresher.settled()
        assert service.peer.connections == 0


# --- what the platform says about its limits


async def limited(service: Acting, *, reset_in: int, remaining: int = 0, name: str = "x-rate-limit") -> None:
    now = await service.whole.app.store.now()
    reset = int(now.timestamp()) + reset_in
    service.peer.answer = says(
        http(b"{}", "200 OK", f"{name}-limit: 50", f"{name}-remaining: {remaining}", f"{name}-reset: {reset}")
    )


async def test_what_the_platform_says_about_its_limit_is_told(tmp_path: Path) -> None:
    async with acting(tmp_path) as service:
        await limited(service, reset_in=900, remaining=7)
        limit = (await service.call()).rate_limit
        assert (limit.limit, limit.remaining) == (50, 7)
        left = limit.reset_time.ToDatetime().timestamp() - (await service.whole.app.store.now()).timestamp()
        assert limit.HasField("reset_time") and left < 900
        service.peer.answer = says(http())
        assert not (await service.call()).HasField("rate_limit")


async def test_a_call_that_would_be_refused_is_not_sent_if_its_caller_wants_that(tmp_path: Path) -> None:
    async with acting(tmp_path) as service:
        await limited(service, reset_in=900)
        await service.call()
        refusal = await service.refusal(refuse_if_limited=True)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert refusal.facts == {"limit": "platform"}
        assert timedelta(seconds=880) < refusal.retry_after <= timedelta(seconds=900)
        assert len(service.peer.received) == 1
        await service.call()
        assert len(service.peer.received) == 2, "who does not ask for that has it sent"
        await service.call(path="/2/tweets/1", refuse_if_limited=True)
        assert len(service.peer.received) == 3, "another route has a limit of its own"
        service.whole.clock.offset += timedelta(seconds=900)
        await service.call(refuse_if_limited=True)
        assert len(service.peer.received) == 4


async def test_a_limit_of_the_app_holds_for_all_its_accounts(tmp_path: Path) -> None:
    async with acting(tmp_path) as service:
        other = await service.whole.connect("grace")
        await limited(service, reset_in=900, name="x-app-limit-24hour")
        await service.call()
        refusal = await service.refusal(account_id=other.id, refuse_if_limited=True)
        assert refusal.facts == {"limit": "platform"}
        await service.call(account_id=other.id, path="/2/tweets/1", refuse_if_limited=True)
        assert len(service.peer.received) == 2, "another route has a limit of its own"


async def test_a_limit_holds_for_the_platforms_route_and_not_for_all_that_the_callers_route_matches(
    tmp_path: Path,
) -> None:
    async with acting(tmp_path) as service:
        await limited(service, reset_in=900)
        await service.call(path="/2/users/me")
        await service.call(path="/2/users/12", refuse_if_limited=True)
        assert len(service.peer.received) == 2, "GET /2/users/{id} is the caller's route for both"
        refusal = await service.refusal(path="/2/users/13", refuse_if_limited=True)
        assert refusal.facts == {"limit": "platform"}


async def test_429_with_retry_after_is_remembered(tmp_path: Path) -> None:
    async with acting(tmp_path, says(http(b"{}", "429 Too Many Requests", "Retry-After: 30"))) as service:
        assert (await service.call()).status_code == 429
        refusal = await service.refusal(refuse_if_limited=True)
        assert timedelta(seconds=28) < refusal.retry_after <= timedelta(seconds=30)


@pytest.mark.parametrize("odd", ["", "-1", "many", "1e9", "9" * 40, "0x1", "٣"])
async def test_a_limit_that_cannot_be_read_is_as_if_it_were_missing(tmp_path: Path, odd: str) -> None:
    async with acting(tmp_path) as service:
        told = ("x-rate-limit-limit: 5", f"x-rate-limit-remaining: {odd}", "x-rate-limit-reset: 9999999999")
        service.peer.answer = says("\r\n".join(["HTTP/1.1 200 OK", "Content-Length: 0", *told, "", ""]).encode())
        assert not (await service.call()).HasField("rate_limit")
        await service.call(refuse_if_limited=True)


# --- usage


async def test_the_usage_of_an_account_and_of_a_profile_is_told_page_by_page(service: Acting) -> None:
    other = await service.whole.connect("grace")
    service.peer.answer = says(http(b"{}", "404 Not Found"))
    await service.call()
    service.peer.answer = says(http(b"{}"))
    await service.post()
    await service.call(account_id=other.id, path="/2/users/ada.lovelace")
    uses = await service.usage()
    assert [(use.method, use.route, use.result, use.status_code) for use in uses] == [
        ("POST", "/2/tweets", "sent", 0),
        ("GET", "/2/users/{id}", "answered", 404),
        ("GET", "/2/users/{id}", "sent", 0),
    ]
    assert {(use.caller, use.platform, use.account_id) for use in uses} == {("local", "twitter", service.account.id)}
    assert uses[1].use_id == uses[2].use_id != uses[0].use_id
    everything = await service.usage(profile_id=PROFILE)
    assert [use.account_id for use in everything].count(other.id) == 1
    assert "lovelace" not in str(everything), "a path may hold personal data"
    paged: list[pb.Usage] = []
    token = ""
    while token or not paged:
        page = await service.stub.ListUsage(
            pb.ListUsageRequest(profile_id=PROFILE, page_size=1, page_token=token),
            metadata=bearer(service.whole.local.api_key),
        )
        paged += page.usages
        token = page.next_page_token
    assert paged == everything


async def test_usage_is_refused_or_empty_where_the_caller_sees_nothing(service: Acting) -> None:
    key = bearer(service.whole.local.api_key)
    assert await service.usage(profile_id="nobody") == []
    for request, reason, field in (
        (pb.ListUsageRequest(), "INVALID_FIELD", "of"),
        (pb.ListUsageRequest(account_id="x"), "INVALID_FIELD", "account_id"),
        (pb.ListUsageRequest(profile_id="\n"), "INVALID_FIELD", "profile_id"),
        (pb.ListUsageRequest(account_id=service.account.id[:-4] + "0000"), "ACCOUNT_NOT_FOUND", None),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.stub.ListUsage(request, metadata=key)
        refusal = refusal_of(caught.value)
        assert refusal.reason == reason
        assert refusal.facts.get("field") == field


async def test_many_calls_at_once_are_each_recorded(service: Acting) -> None:
    answers = await asyncio.gather(*(service.post() for _ in range(150)))
    assert {answer.status_code for answer in answers} == {200}
    uses = await service.usage(account_id=service.account.id, page_size=500)
    assert len({use.use_id for use in uses}) == len(uses) == 150


async def test_an_account_that_is_revoked_while_its_token_is_fetched_is_not_used(service: Acting) -> None:
    fetch = service.whole.app.fresh.token_set

    async def late(*arguments: Any) -> Any:
        token_set = await fetch(*arguments)
        await service.whole.app.store.revoke_account(
            service.account.id, caller="somebody", supported=False, ends_user_grant=False
        )
        return token_set

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(service.whole.app.fresh, "token_set", late)
        refusal = await service.refusal()
    assert refusal.reason == "ACCOUNT_REVOKED"
    assert service.peer.connections == 0
    assert await service.usage() == []


async def test_what_ends_after_its_profile_was_deleted_is_recorded_without_the_profile(service: Acting) -> None:
    held, go_on = asyncio.Event(), asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        held.set()
        await go_on.wait()
        writer.transport.abort()

    service.peer.answer = answer
    call = asyncio.create_task(service.post())
    await held.wait()
    await service.whole.accounts.delete_profile(PROFILE)
    service.whole.clock.offset += timedelta(minutes=2)
    await service.whole.app.eraser.work_off()
    go_on.set()
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    assert await service.usage(profile_id=PROFILE) == []
    page = await service.whole.app.store.list_events(EventFilter(account_id=service.account.id), after="", size=50)
    used = [event for event in page.events if event.kind in USES]
    assert [(event.kind, event.profile_id) for event in used] == [("account_use_failed", ""), ("account_used", "")]
