"""What the clients make of a watch: news, reconnects that resume, and mirrors that stay true."""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1.connected_account_pb2 import ConnectedAccount
from synposter_accounts import (
    AccountChangeKind,
    Accounts,
    AccountsError,
    AsyncAccounts,
    AsyncMirror,
    CallerNotPermitted,
    CallerUnknown,
    Change,
    DeadlineExceeded,
    Heartbeat,
    InvalidField,
    Listing,
    Mirror,
    RateLimited,
    ServiceUnreachable,
    StatusReason,
    StoreUnavailable,
)
from synposter_accounts.mirror import MirroredAccounts
from synposter_accounts.model import to_news
from synposter_accounts.watching import Course

from tests.clients.either import KEY, Either
from tests.clients.told import ACCOUNT, END, Told, failure, info


def account(account_id: str, handle: str = "ada") -> ConnectedAccount:
    return ConnectedAccount(id=account_id, profile_id="p", platform="twitter", handle=handle)


def listing(token: str, *ids: str, complete: bool = True) -> pb.WatchAccountsResponse:
    accounts = [account(each) for each in ids]
    return pb.WatchAccountsResponse(listing=pb.AccountListing(accounts=accounts, complete=complete), resume_token=token)


def change(token: str, account_id: str, handle: str | None = "ada", kind: int = 3) -> pb.WatchAccountsResponse:
    told = pb.AccountChange(kind=kind, account_id=account_id)  # type: ignore[arg-type]
    if handle is not None:
        told.account.CopyFrom(account(account_id, handle))
    return pb.WatchAccountsResponse(change=told, resume_token=token)


def beat(token: str) -> pb.WatchAccountsResponse:
    return pb.WatchAccountsResponse(heartbeat=pb.Heartbeat(), resume_token=token)


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


# --- mirrors


class Mirrored:
    """A mirror of either client; the sync one is entered and left on a thread, as it waits there."""

    def __init__(self, client: Either, *arguments: Any) -> None:
        self.threaded = client.threaded
        self.mirror = client.client.mirror(*arguments)

    async def __aenter__(self) -> Any:
        return await (asyncio.to_thread(self.mirror.__enter__) if self.threaded else self.mirror.__aenter__())

    async def __aexit__(self, *error: Any) -> None:
        leave = self.mirror.__exit__ if self.threaded else self.mirror.__aexit__
        await (asyncio.to_thread(leave, *error) if self.threaded else leave(*error))


async def until(holds: Any) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_mirror_holds_all_accounts_and_follows_their_changes(client: Either, told: Told) -> None:
    told.line = [listing("a", "1", complete=False), listing("b", "2"), END]
    told.line += [change("c", "1", "countess"), change("d", "3", "new", kind=1), change("e", "2", None, kind=8)]
    async with Mirrored(client, "p") as mirror:
        await until(lambda: set(mirror) == {"1", "3"})
        assert mirror["1"].handle == "countess" and len(mirror) == 2 and "2" not in mirror


def test_who_goes_through_a_mirror_is_not_disturbed_by_an_account_that_is_deleted_meanwhile() -> None:
    mirror = MirroredAccounts()
    mirror.take(to_news(listing("a", "1", "2"), begins=True))
    for look in (mirror.items, mirror.values):
        one_by_one = iter(look())
        next(one_by_one)
        mirror.take(to_news(change("b", "2", None, kind=8), begins=False))
        assert len(list(one_by_one)) == 1
        mirror.take(to_news(change("c", "2", kind=1), begins=False))
    assert set(mirror) == {"1", "2"}


async def test_a_mirror_that_lists_again_drops_what_is_gone(client: Either, told: Told) -> None:
    too_old = failure(grpc.StatusCode.OUT_OF_RANGE.value[0], info("RESUME_TOKEN_TOO_OLD"))
    told.line = [listing("a", "1", "2", "3"), END, too_old, listing("b", "1", complete=False), END, listing("c", "4")]
    async with Mirrored(client, "p") as mirror:
        await until(lambda: set(mirror) == {"1", "4"})


async def test_a_mirror_that_cannot_be_kept_true_says_so(client: Either, told: Told) -> None:
    blocked = failure(grpc.StatusCode.PERMISSION_DENIED.value[0], info("CALLER_NOT_PERMITTED", blocked="yes"))
    told.line = [blocked]
    with pytest.raises(CallerNotPermitted):
        async with Mirrored(client, "p"):
            pass
    told.line = [listing("a", "1"), END, blocked]
    with pytest.raises(CallerNotPermitted):
        async with asyncio.timeout(10), Mirrored(client, "p") as mirror:
            await until(lambda: mirror["1"] is None)


async def test_a_mirror_that_could_not_be_kept_true_is_true_again_once_an_operator_has_mended_it(
    client: Either, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synposter_accounts.mirror.RETRY_SECONDS", 0.01)
    unknown = failure(grpc.StatusCode.UNAUTHENTICATED.value[0], info("CALLER_UNKNOWN"))
    told.line = [listing("a", "1"), END, unknown, unknown, change("b", "1", "countess")]
    async with Mirrored(client, "p") as mirror:
        await until(lambda: not told.line and is_told(mirror) and mirror["1"].handle == "countess")
    assert [request.resume_token for request in told.requests] == ["", "a", "a", "a"]


def is_told(mirror: Any) -> bool:
    try:
        return len(mirror) > 0
    except CallerUnknown:
        return False


async def test_a_mirror_whose_client_is_closed_says_so(client: Either, told: Told) -> None:
    told.line = [listing("a", "1"), END]
    async with Mirrored(client, "p") as mirror:
        await client.close()

        def is_told() -> bool:
            try:
                return mirror["1"] is None
            except Exception as error:
                return "closed" in str(error).lower()

        await until(is_told)


async def test_a_mirror_that_was_not_entered_or_was_left_does_not_look_empty_or_true(
    client: Either, told: Told
) -> None:
    told.line = [listing("a", "1")]
    mirrored = Mirrored(client, "p")
    with pytest.raises(ValueError, match="not entered"):
        len(mirrored.mirror)
    async with mirrored as mirror:
        assert "1" in mirror
    for look in (len, list, lambda mirror: mirror.get("1")):
        with pytest.raises(ValueError, match="was left"):
            look(mirror)


def test_a_mirror_that_is_told_nothing_for_two_minutes_does_not_look_true_until_it_is_told_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("synposter_accounts.mirror.monotonic", lambda: now)
    mirror = MirroredAccounts()
    mirror.take(to_news(listing("a", "1"), begins=True))
    for whole_news in (beat("b"), change("c", "1"), listing("d", "1")):
        now += 120
        assert list(mirror) == ["1"]
        now += 1
        for look in (len, list, lambda mirror: mirror["1"], lambda mirror: mirror.items()):
            with pytest.raises(ServiceUnreachable, match="121 s"):
                look(mirror)
        mirror.take(to_news(listing("d", "1", complete=False), begins=True))
        with pytest.raises(ServiceUnreachable):
            len(mirror)
        mirror.take(to_news(whole_news, begins=False))
        assert list(mirror) == ["1"]


def test_a_mirror_that_is_looked_at_in_vain_remembers_nobody_who_looked() -> None:
    mirror = MirroredAccounts()
    for _ in range(3):
        with pytest.raises(ValueError, match="not entered") as raised:
            len(mirror)
    assert len(raised.traceback) == 3, "the traceback grows with every look, and keeps what each was about"


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


async def test_a_mirror_does_not_wait_for_ever(told: Told, served: Any) -> None:
    for kind in (Accounts, AsyncAccounts):
        async with Either(kind, served[1], timeout=0.2) as client:
            with pytest.raises(DeadlineExceeded) as raised:
                async with Mirrored(client, "p"):
                    pass
            assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


class BrokenOff:
    """A watch of either kind that broke off, and has not got through again."""

    def __init__(self) -> None:
        self.course = Course("p", None, "")
        self.course.seconds_to_wait(StoreUnavailable("the database does not answer"))
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()

    def __iter__(self) -> Iterator[Any]:
        self.closed.wait(10)
        return iter(())

    async def __aiter__(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield


async def test_a_mirror_that_cannot_be_entered_in_time_says_what_stood_in_the_way() -> None:
    why = "not listed in 0.01 s: the database does not answer"
    with pytest.raises(DeadlineExceeded, match=why), Mirror(BrokenOff(), 0.01):  # type: ignore[arg-type]
        pass
    with pytest.raises(DeadlineExceeded, match=why):
        async with AsyncMirror(BrokenOff(), 0.01):  # type: ignore[arg-type]
            pass


def test_what_stood_in_the_way_is_forgotten_with_the_next_news() -> None:
    course = BrokenOff().course
    assert isinstance(course.failure, StoreUnavailable)
    course.read(beat("a"))
    assert course.failure is None


async def test_whoever_leaves_a_mirror_can_be_cancelled(told: Told, served: Any) -> None:
    told.line = [listing("a", "1")]

    async def leave() -> None:
        async with AsyncAccounts(served[1], KEY) as accounts, accounts.mirror("p"):
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(leave())
