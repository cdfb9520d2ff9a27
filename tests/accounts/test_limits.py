"""Limits of callers: what they let through and for how long they hold, with time that is moved."""

import random
from datetime import timedelta

import pytest

from server.accounts.callers import Limits
from server.accounts.errors import RateLimited
from server.accounts.limits import MINUTE, CallerLimits, Pace, Recent


class Time:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def test_a_pace_lets_a_seconds_worth_through_at_once_and_then_its_rate(time: Time) -> None:
    pace = Pace(10, time)
    assert [pace.take() for _ in range(10)] == [0.0] * 10
    assert pace.take() == pytest.approx(0.1)
    passed = 0
    for _ in range(10_000):
        time.now += 0.01
        passed += pace.take() == 0.0
    assert passed == pytest.approx(1_000, abs=1)


def test_whoever_waits_as_long_as_it_is_told_is_let_through(time: Time) -> None:
    for slow in (0.01, 3.7):
        pace = Pace(slow, time)
        while not (wait := pace.take()):
            pass
        time.now += wait * 0.99
        assert pace.take()
        time.now += wait * 0.02
        assert not pace.take()


def test_a_pace_below_one_lets_one_call_through(time: Time) -> None:
    pace = Pace(0.1, time)
    assert (pace.take(), pace.take()) == (0.0, pytest.approx(10.0))


def test_in_no_minute_are_there_more_distinct_things_than_the_limit(time: Time) -> None:
    recent, rng, taken = Recent(50, time), random.Random(1), []
    for _ in range(20_000):
        time.now += rng.expovariate(2)
        thing = rng.randrange(200)
        if not recent.take(thing):
            taken.append((time.now, thing))
        window = {thing for at, thing in taken[-400:] if at > time.now - MINUTE}
        assert len(window) <= 50
    assert len(taken) > 10_000, "known things are always let through"


def test_it_holds_until_the_longest_unused_is_a_minute_old(time: Time) -> None:
    recent = Recent(2, time)
    recent.take("a")
    time.now += 10
    recent.take("b")
    time.now += 10
    recent.take("a")
    assert recent.take("c") == pytest.approx(MINUTE - 10)
    time.now += MINUTE - 10
    assert (recent.take("c"), recent.take("b")) == (0.0, pytest.approx(10))


def test_a_million_accounts_take_no_more_memory_than_the_limit(time: Time) -> None:
    recent = Recent(100, time)
    for number in range(1_000_000):
        recent.take(number)
        time.now += 0.001
    assert len(recent) <= 100


def test_a_page_counts_whole_and_the_next_account_waits(time: Time) -> None:
    limits = CallerLimits(Limits(accounts_a_minute=3), time)
    limits.listing()
    limits.listed(["a", "b", "c", "d", "e"])
    limits.account("e")
    for refused in (limits.listing, lambda: limits.account("f")):
        with pytest.raises(RateLimited) as caught:
            refused()
        assert caught.value.retry_after == timedelta(seconds=60)
        assert caught.value.facts == {"limit": "accounts_a_minute"}
    time.now += MINUTE
    limits.listing()


def test_what_was_refused_does_not_count(time: Time) -> None:
    limits = CallerLimits(Limits(revokes_a_minute=1), time)
    limits.revoke()
    for _ in range(59):
        time.now += 1
        with pytest.raises(RateLimited):
            limits.revoke()
    time.now += 1
    limits.revoke()


def test_without_limits_nothing_is_counted(time: Time) -> None:
    limits = CallerLimits(Limits(), time)
    for number in range(1_000):
        limits.call(), limits.revoke(), limits.account(str(number)), limits.listing(), limits.listed(["x"])
