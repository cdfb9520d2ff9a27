"""What the clients make of a mirror: a dict of accounts that is true, or says that it is not."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from synposter_accounts import (
    Accounts,
    AsyncAccounts,
    AsyncMirror,
    CallerNotPermitted,
    CallerUnknown,
    DeadlineExceeded,
    Mirror,
    ServiceUnreachable,
    StoreUnavailable,
)
from synposter_accounts.mirror import MirroredAccounts
from synposter_accounts.model import to_news
from synposter_accounts.watching import Course

from tests.clients.either import KEY, Either
from tests.clients.told import END, Told, beat, change, failure, info, listing, until


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
