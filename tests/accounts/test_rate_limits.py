"""What platforms said about their limits is remembered as long as it holds, and no longer than a day."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from server.accounts import rate_limits
from server.accounts.rate_limits import RateLimit, RateLimits, tightest

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SOON, LATER = NOW + timedelta(minutes=15), NOW + timedelta(minutes=30)


def wait(limits: RateLimits, account_id: str = "a", route: str = "GET /x", now: datetime = NOW) -> timedelta:
    return limits.wait("twitter", account_id, route, now)


def told(limits: RateLimits, *told: RateLimit, refused_for: timedelta | None = None, account_id: str = "a") -> None:
    """As a call does it: what nothing is learnt from is not told."""
    if refused_for is not None or limits.learns_from("twitter", account_id, "GET /x", told):
        limits.told("twitter", account_id, "GET /x", told, refused_for, NOW)


def test_a_used_up_limit_holds_for_its_account_and_route_until_it_begins_anew() -> None:
    limits = RateLimits()
    told(limits, RateLimit(50, 0, SOON))
    assert wait(limits) == timedelta(minutes=15)
    assert wait(limits, account_id="b") == wait(limits, route="GET /y") == timedelta()
    assert wait(limits, now=SOON) == timedelta()


def test_from_room_where_nothing_is_known_nothing_is_learnt() -> None:
    assert not RateLimits().learns_from("twitter", "a", "GET /x", [RateLimit(50, 3, SOON)])


def test_a_newer_window_with_something_left_ends_what_was_remembered() -> None:
    limits = RateLimits()
    told(limits, RateLimit(50, 0, SOON))
    told(limits, RateLimit(50, 3, LATER))
    assert wait(limits) == timedelta()


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(RateLimit(50, 3, SOON), id="of the window"),
        pytest.param(RateLimit(50, 3, NOW + timedelta(minutes=1)), id="of an older one"),
        pytest.param(RateLimit(50, 0, NOW + timedelta(minutes=1)), id="of an older one that was used up"),
        pytest.param(RateLimit(50, 3, None), id="of no window"),
        pytest.param(RateLimit(50, 3, NOW - timedelta(minutes=1)), id="of one that is over"),
    ],
)
def test_an_answer_that_arrives_late_ends_no_window_that_is_used_up(late: RateLimit) -> None:
    limits = RateLimits()
    told(limits, RateLimit(50, 0, SOON))
    told(limits, late)
    assert wait(limits) == timedelta(minutes=15)


def test_an_answer_of_an_older_window_that_was_used_up_says_nothing_of_the_newer_one() -> None:
    limits = RateLimits()
    told(limits, RateLimit(50, 0, NOW + timedelta(minutes=1)))
    told(limits, RateLimit(50, 3, SOON))
    told(limits, RateLimit(50, 0, NOW + timedelta(minutes=2)))
    assert wait(limits) == timedelta()


def test_a_shorter_retry_after_that_arrives_late_does_not_end_a_longer_one() -> None:
    limits = RateLimits()
    told(limits, refused_for=timedelta(minutes=15))
    told(limits, RateLimit(50, 3, LATER), refused_for=timedelta(minutes=1))
    assert wait(limits) == timedelta(minutes=15)


def test_of_two_limits_of_a_route_the_one_with_room_does_not_end_the_one_that_is_used_up() -> None:
    for two in permutations((RateLimit(50, 0, SOON, name="quarter"), RateLimit(500, 400, LATER, name="day"))):
        limits = RateLimits()
        told(limits, *two)
        assert wait(limits) == timedelta(minutes=15)
    told(limits, RateLimit(500, 0, LATER, name="day"))
    assert wait(limits) == LATER - NOW


def test_a_limit_of_the_app_holds_for_every_account_of_the_platform_on_its_route() -> None:
    limits = RateLimits()
    told(limits, RateLimit(50, 0, SOON, of_app=True))
    assert wait(limits, account_id="b") == timedelta(minutes=15)
    assert wait(limits, account_id="b", route="POST /z") == timedelta()
    assert limits.wait("linkedin", "a", "GET /x", NOW) == timedelta()


def test_a_window_is_not_believed_to_last_longer_than_a_day() -> None:
    limits = RateLimits()
    told(limits, RateLimit(50, 0, NOW + timedelta(days=400)))
    assert wait(limits) == timedelta(days=1)


def test_what_is_over_already_or_has_no_end_is_not_remembered() -> None:
    limits = RateLimits()
    told(limits, RateLimit(50, 0, NOW - timedelta(seconds=1)), RateLimit(50, 0, None))
    assert (wait(limits), len(limits)) == (timedelta(), 0)


def test_no_more_is_remembered_than_there_is_room_for(monkeypatch) -> None:
    monkeypatch.setattr(rate_limits, "MOST_REMEMBERED", 3)
    limits = RateLimits()
    for account_id in "abcde":
        told(limits, refused_for=timedelta(minutes=1), account_id=account_id)
    assert len(limits) == 3
    assert (wait(limits, account_id="b"), wait(limits, account_id="e")) == (timedelta(), timedelta(minutes=1))


def test_of_several_limits_the_one_with_the_least_left_is_told() -> None:
    assert tightest([RateLimit(50, 7), RateLimit(9, 2), RateLimit(1000, 900)]) == RateLimit(9, 2)
    assert tightest([]) is None
    quarter, day = RateLimit(50, 0, SOON), RateLimit(500, 0, LATER)
    assert tightest([quarter, day, RateLimit(9, 0)]) == day, "who waits for the other one is refused again"
