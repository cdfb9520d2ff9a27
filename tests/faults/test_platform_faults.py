"""A platform's bad hours, with time that is moved: no request comes earlier than told, and no account is lost."""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from server.storage.schema import AccountRow, GrantRow
from tests.e2e.conftest import Whole, whole_service
from tests.faults.seeded import seed

MINUTE = timedelta(minutes=1)
LIFE = timedelta(hours=3)
DUE = 30
JITTER = timedelta(seconds=6)
"""A first backoff is at most five seconds."""


class Hours:
    """The service in this process, with grants that are due now, and time that is moved on all its clocks."""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole

    async def go_by(self, span: timedelta) -> None:
        """Lets time pass, then does what the calendar would."""
        self.whole.clock.offset += span
        await self.whole.app.refresher.run_once()

    async def sent(self) -> list[str]:
        return [each["sent"] for each in await self.whole.sandbox.requests("token")]

    def grants(self, *columns: Any) -> set[tuple[Any, ...]]:
        return set(GrantRow.select(*columns).tuples().execute(self.whole.app.engine.database))

    def refreshed(self) -> int:
        database = self.whole.app.engine.database
        return int(GrantRow.select().where(GrantRow.generation > 1).count(database))

    async def until_refreshed(self, count: int, step: timedelta, steps: int) -> None:
        for _ in range(steps):
            if self.refreshed() == count:
                return
            await self.go_by(step)
        assert self.refreshed() == count

    async def nobody_was_lost(self) -> None:
        active = AccountRow.select(AccountRow.status).distinct().tuples().execute(self.whole.app.engine.database)
        assert list(active) == [(1,)]
        assert self.grants(GrantRow.state, GrantRow.sends) == {("ready", 0)}
        assert all(grant["alive"] and not grant["replays"] for grant in await self.whole.sandbox.ledger())


@pytest.fixture
async def hours(tmp_path: Path) -> AsyncIterator[Hours]:
    async with whole_service(tmp_path / "deployment") as whole:
        await seed(whole.sandbox, whole.app.store, DUE, due_in=timedelta(), life=LIFE)
        yield Hours(whole)


# --- told to wait


def seconds(text: str) -> Callable[[datetime], str]:
    return lambda _: text


def date(span: timedelta) -> Callable[[datetime], str]:
    return lambda now: format_datetime((now + span).astimezone(UTC), usegmt=True)


@pytest.mark.parametrize(
    ("retry_after", "told"),
    [
        (seconds("120"), timedelta(seconds=120)),
        (date(5 * MINUTE), 5 * MINUTE - timedelta(seconds=1)),  # a date has no fractions
        (date(-5 * MINUTE), timedelta(seconds=1)),
        (seconds("0"), timedelta(seconds=1)),
        (seconds("1000000000"), timedelta(hours=24)),
        (date(timedelta(days=3650)), timedelta(hours=24)),
    ],
    ids=["seconds", "date", "past date", "nothing", "thirty years", "date in ten years"],
)
async def test_no_request_comes_earlier_than_the_platform_told_us_and_none_is_lost(
    hours: Hours, retry_after: Callable[[datetime], str], told: timedelta
) -> None:
    whole = hours.whole
    # Those that are due now are refused; the others fall due while the platform wants to be left alone.
    await seed(whole.sandbox, whole.app.store, DUE, due_in=told / 2, life=timedelta(days=2))
    told_at = retry_after(whole.clock())
    await whole.sandbox.fault("token", "rate_limited", only="refresh", times=-1, retry_after=told_at)
    await hours.go_by(timedelta())
    refused = len(await hours.sent())
    await whole.sandbox.clear_faults()
    assert 0 < refused <= DUE
    assert whole.app.gates["linkedin"].held == ""
    await hours.go_by(told - timedelta(seconds=0.9))
    assert len(await hours.sent()) == refused
    await hours.until_refreshed(2 * DUE, JITTER, steps=3)
    await hours.nobody_was_lost()


@pytest.mark.parametrize("nonsense", ["-5", "soon", "1e9"])
async def test_a_wait_that_cannot_be_read_only_backs_off(hours: Hours, nonsense: str) -> None:
    await hours.whole.sandbox.fault("token", "rate_limited", only="refresh", times=DUE, retry_after=nonsense)
    await hours.go_by(timedelta())
    await hours.until_refreshed(DUE, JITTER, steps=20)  # while the breaker is open they are asked one by one
    await hours.nobody_was_lost()


# --- a storm


async def test_ten_minutes_of_503_cost_no_account_and_one_request_each_at_most(hours: Hours) -> None:
    await hours.whole.sandbox.fault("token", "status_before", only="refresh", status=503, times=-1)
    for _ in range(11):
        await hours.go_by(MINUTE)
    during = await hours.sent()
    assert 0 < len(during) <= 1.1 * DUE
    assert len(set(during)) == len(during)
    await hours.whole.sandbox.clear_faults()
    await hours.until_refreshed(DUE, 10 * MINUTE, steps=20)
    after = (await hours.sent())[len(during) :]
    assert len(set(after)) == len(after) == DUE
    await hours.nobody_was_lost()


# --- out of reach


@contextlib.contextmanager
def nobody_listens(_: Whole, __: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextlib.contextmanager
def silent(_: Whole, __: pytest.MonkeyPatch) -> Iterator[str]:
    """Connected to, but it never speaks TLS."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"


@contextlib.contextmanager
def no_tls(whole: Whole, _: pytest.MonkeyPatch) -> Iterator[str]:
    """The sandbox's own port, where a TLS handshake fails."""
    yield whole.sandbox.url.replace("http://", "https://")


def unresolved(code: int) -> Callable[[Whole, pytest.MonkeyPatch], contextlib.AbstractContextManager[str]]:
    @contextlib.contextmanager
    def lookup_fails(_: Whole, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        real = socket.getaddrinfo

        def fail(host: Any, *arguments: Any, **options: Any) -> Any:
            if host == "platform.test":
                raise socket.gaierror(code, "as told")
            return real(host, *arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr("socket.getaddrinfo", fail)
            yield "http://platform.test"

    return lookup_fails


@pytest.mark.parametrize(
    "out_of_reach",
    [
        nobody_listens,
        pytest.param(silent, marks=pytest.mark.long),
        no_tls,
        unresolved(socket.EAI_NONAME),
        pytest.param(unresolved(socket.EAI_AGAIN), marks=pytest.mark.long),
    ],
    ids=["refused", "silent", "no TLS", "no such name", "name server fails"],
)
async def test_an_hour_out_of_reach_leaves_every_account_active_and_no_outcome_unknown(
    hours: Hours, monkeypatch: pytest.MonkeyPatch, out_of_reach: Any
) -> None:
    platform: Any = hours.whole.app.platforms["twitter"]
    there, limit = platform.endpoints, platform._token_timeout
    with out_of_reach(hours.whole, monkeypatch) as url:
        platform.endpoints = replace(there, token=f"{url}/token")
        platform._token_timeout = timedelta(seconds=0.4)
        for _ in range(12):
            await hours.go_by(5 * MINUTE)
    platform.endpoints, platform._token_timeout = there, limit
    assert await hours.sent() == []
    assert hours.grants(GrantRow.state, GrantRow.sends) == {("ready", 0)}
    assert {error for (error,) in hours.grants(GrantRow.last_error)} != {""}
    await hours.until_refreshed(DUE, 10 * MINUTE, steps=12)
    assert len(await hours.sent()) == DUE
    await hours.nobody_was_lost()
