"""What the clients make of a watch: news, in order, and reconnects that resume."""

import asyncio
import gc
from datetime import timedelta
from typing import Any

import grpc
import pytest
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter_accounts import (
    AccountChangeKind,
    AccountsError,
    AsyncAccounts,
    CallerNotPermitted,
    Change,
    Heartbeat,
    InvalidField,
    Listing,
    RateLimited,
    StatusReason,
)
from synposter_accounts.watching import Course

from tests.clients.either import KEY, Either
from tests.clients.told import ACCOUNT, END, Told, beat, change, failure, info, listing, until


class Following:
    """A watch of either client, asked for one piece of news at a time."""

    def __init__(self, client: Either, *arguments: Any, **keywords: Any) -> None:
        self.threaded = client.threaded
        self.watch = client.client.watch(*arguments, **keywords)

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            return await (asyncio.to_thread(next, self.watch, None) if self.threaded else anext(self.watch))

    async def several(self, count: int) -> list[Any]:
        return [await self.next() for _ in range(count)]

    async def close(self) -> None:
        await (asyncio.to_thread(self.watch.close) if self.threaded else self.watch.close())


async def test_news_come_as_they_are_told(client: Either, told: Told) -> None:
    expired = pb.AccountChange(kind="ACCOUNT_CHANGE_KIND_EXPIRED", account_id="1", status_reason=1, account=ACCOUNT)
    told.line = [
        listing("a", "1", complete=False),
        listing("b", "2"),
        pb.WatchAccountsResponse(change=expired, resume_token="c"),
        change("d", "1", None, kind=8),
        beat("e"),
        pb.WatchAccountsResponse(resume_token="f"),
    ]
    watch = Following(client, "p", platform="twitter")
    first, second, third, gone, heartbeat, newer = await watch.several(6)
    assert isinstance(first, Listing) and (first.begins, first.complete) == (True, False)
    assert isinstance(second, Listing) and (second.begins, second.complete) == (False, True)
    assert isinstance(third, Change) and third.account is not None and third.account.handle == "ada"
    assert (third.kind, third.status_reason) == (AccountChangeKind.EXPIRED, StatusReason.REFRESH_REJECTED)
    assert isinstance(gone, Change) and (gone.kind, gone.account) == (AccountChangeKind.DELETED, None)
    assert (heartbeat, newer) == (Heartbeat("e"), Heartbeat("f"))
    assert told.requests == [pb.WatchAccountsRequest(profile_id="p", platform="twitter")]
    await watch.close()


@pytest.mark.parametrize("broken", [
    END,
    failure(grpc.StatusCode.UNAVAILABLE.value[0]),
    failure(grpc.StatusCode.UNAVAILABLE.value[0], info("STORE_UNAVAILABLE")),
    failure(grpc.StatusCode.CANCELLED.value[0]),
    failure(grpc.StatusCode.DEADLINE_EXCEEDED.value[0]),
    failure(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], info("RATE_LIMITED", limit="watch_backlog")),
])  # fmt: skip
async def test_a_watch_that_breaks_goes_on_behind_what_was_told_last(client: Either, told: Told, broken: Any) -> None:
    told.line = [listing("a", "1"), broken, change("b", "1"), broken, broken, beat("c")]
    watch = Following(client, "p")
    news = await watch.several(3)
    assert [each.resume_token for each in news] == ["a", "b", "c"]
    assert [request.resume_token for request in told.requests] == ["", "a", "b", "b"]
    await watch.close()


async def test_a_watch_that_breaks_again_and_again_is_logged_with_the_reason(
    client: Either, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "synposter_accounts")
    away = failure(grpc.StatusCode.UNAVAILABLE.value[0], info("STORE_UNAVAILABLE"))
    away.message = "the database does not answer"
    told.line = [away, away, beat("a"), away, beat("b")]
    watch = Following(client, "p")
    await watch.several(2)
    records = [each for each in caplog.records if each.name.startswith("synposter_accounts")]
    assert [record.levelname for record in records] == ["INFO", "WARNING", "INFO"]
    assert all("the database does not answer" in record.getMessage() for record in records)
    await watch.close()


async def test_a_watch_goes_on_where_another_one_ended(client: Either, told: Told) -> None:
    told.line = [beat("b")]
    watch = Following(client, "p", resume_token="a")
    assert await watch.next() == Heartbeat("b")
    assert told.requests[0].resume_token == "a"
    await watch.close()


async def test_where_the_service_does_not_know_any_more_the_accounts_are_listed_again(
    client: Either, told: Told
) -> None:
    too_old = failure(grpc.StatusCode.OUT_OF_RANGE.value[0], info("RESUME_TOKEN_TOO_OLD"))
    told.line = [listing("a", "1", complete=False), too_old, listing("b", "2"), END, too_old, listing("c", "3")]
    watch = Following(client, "p")
    news = await watch.several(3)
    assert [each.begins for each in news] == [True, True, True]
    assert [request.resume_token for request in told.requests] == ["", "", "b", ""]
    await watch.close()


@pytest.mark.parametrize("code, reason, kind", [
    (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_PERMITTED", CallerNotPermitted),
    (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", InvalidField),
    (grpc.StatusCode.UNIMPLEMENTED, "", AccountsError),
])  # fmt: skip
async def test_what_will_not_get_better_is_raised(
    client: Either, told: Told, code: grpc.StatusCode, reason: str, kind: type
) -> None:
    told.line = [listing("a", "1"), failure(code.value[0], *([info(reason)] if reason else []))]
    watch = Following(client, "p")
    await watch.next()
    with pytest.raises(kind):
        await watch.next()
    await watch.close()


def test_waits_grow_to_ten_seconds_and_are_never_shorter_than_asked() -> None:
    course = Course("p", None, "")
    waits = [course.seconds_to_wait(None) for _ in range(12)]
    assert waits[0] <= 0.1 and 5 <= waits[-1] <= 10
    asked = RateLimited("no", code=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=timedelta(seconds=60))
    assert course.seconds_to_wait(asked) >= 60
    course.read(beat("a"))
    assert course.seconds_to_wait(None) <= 0.1


async def test_a_watch_that_waits_for_news_can_be_closed(client: Either, told: Told) -> None:
    told.line = [listing("a", "1")]
    watch = Following(client, "p")
    await watch.next()
    waiting = asyncio.create_task(whole(watch))
    await asyncio.sleep(0.05)
    await watch.close()
    async with asyncio.timeout(10):
        assert await waiting == []


async def whole(watch: Following) -> list[Any]:
    """All that is still to come, until it is closed."""
    if watch.threaded:
        return await asyncio.to_thread(list, watch.watch)
    return [news async for news in watch.watch]


async def test_who_gives_up_waiting_for_news_can_go_on_watching(served: tuple[Told, str]) -> None:
    told, target = served
    told.line = [listing("a", "1")]
    async with AsyncAccounts(target, KEY) as accounts, accounts.watch("p") as watch:
        await anext(watch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.05)
        told.line = [beat("b")]
        assert await asyncio.wait_for(anext(watch), 10) == Heartbeat("b")
        await until(lambda: told.watches == 1)
    assert [request.resume_token for request in told.requests] == ["", "a"]


async def test_a_watch_that_is_left_unclosed_ends_at_the_service(
    client: Either, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.clients.told.PATIENCE", 600)
    told.line = [listing("a", "1")]
    watch = Following(client, "p")
    await watch.next()
    assert told.watches == 1
    del watch
    await until(lambda: gc.collect() >= 0 and told.watches == 0)


async def test_a_watch_of_a_client_that_is_closed_ends_with_an_error_and_cancels_no_task(
    client: Either, told: Told
) -> None:
    told.line = [listing("a", "1")]
    watch = Following(client, "p")
    await watch.next()
    waiting = asyncio.create_task(watch.next())
    await asyncio.sleep(0.05)
    await client.close()
    with pytest.raises(ValueError, match="closed"):
        await waiting
    with pytest.raises(ValueError, match="closed"):
        await Following(client, "p").next()
