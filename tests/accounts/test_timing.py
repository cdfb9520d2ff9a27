"""When refreshes and retries are due."""

from datetime import UTC, datetime, timedelta

import pytest

from server.accounts.grants import TokenSet
from server.accounts.model import Secret
from server.accounts.timing import backoff, refresh_due_time, replay_time, stable_share

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def token_set(life: timedelta | None, refresh_token: str | None = "r") -> TokenSet:
    return TokenSet(
        Secret("a"), Secret(refresh_token) if refresh_token else None, None if life is None else NOW + life, ()
    )


def test_a_refresh_is_due_between_75_and_85_percent_of_the_life_and_always_at_the_same_point() -> None:
    shares = [
        (refresh_due_time(f"grant-{n}", token_set(timedelta(hours=2)), NOW, MINUTE) - NOW) / timedelta(hours=2)
        for n in range(2000)
    ]
    assert 0.75 <= min(shares) < 0.755
    assert 0.845 < max(shares) < 0.85
    again = refresh_due_time("grant-7", token_set(timedelta(hours=2)), NOW, MINUTE)
    assert again == refresh_due_time("grant-7", token_set(timedelta(hours=2)), NOW, MINUTE)


def test_due_times_are_spread_evenly() -> None:
    tenths = [0] * 10
    for number in range(10_000):
        tenths[int(stable_share(f"grant-{number}") * 10)] += 1
    assert max(tenths) < 1.15 * 1000


@pytest.mark.parametrize("seconds", [0, -1, 1, 30])
def test_a_hostile_expiry_costs_one_refresh_per_interval(seconds: int) -> None:
    assert refresh_due_time("g", token_set(timedelta(seconds=seconds)), NOW, MINUTE) == NOW + MINUTE


def test_what_cannot_be_refreshed_is_looked_at_when_it_ends() -> None:
    life = timedelta(days=60)
    assert refresh_due_time("g", token_set(life, None), NOW, MINUTE) == NOW + life


def test_a_token_that_does_not_end_is_never_due() -> None:
    assert refresh_due_time("g", token_set(None), NOW, MINUTE) is None


def test_a_lost_answer_is_tried_again_shortly_before_the_access_token_ends() -> None:
    assert replay_time(token_set(timedelta(hours=1)), NOW, least=MINUTE) == NOW + timedelta(minutes=55)


def test_a_last_try_is_not_made_at_once_even_where_the_access_token_has_ended() -> None:
    waits = [replay_time(token_set(timedelta(minutes=-1)), NOW, least=MINUTE) - NOW for _ in range(100)]
    assert min(waits) >= MINUTE and max(waits) <= 1.25 * MINUTE and len(set(waits)) > 50


def test_the_backoff_grows_is_random_and_never_shorter_than_retry_after() -> None:
    assert all(backoff(0) <= timedelta(seconds=5) for _ in range(100))
    assert len({backoff(5) for _ in range(50)}) > 40
    assert max(backoff(30) for _ in range(200)) <= timedelta(hours=1)
    assert min(backoff(0, timedelta(seconds=120)) for _ in range(100)) >= timedelta(seconds=120)


def test_what_was_overdue_together_is_spread_evenly_a_day_later() -> None:
    """A herd that a platform of one refresh a second takes 83 minutes to work off; the next day by ten minutes."""
    day, life = timedelta(days=1), timedelta(hours=2)
    buckets = [0] * 144
    for number in range(5_000):
        moment = NOW + timedelta(seconds=number)
        while moment < NOW + 2 * day:
            if moment >= NOW + day:
                buckets[int((moment - NOW - day) / timedelta(minutes=10))] += 1
            token = TokenSet(Secret("a"), Secret("r"), moment + life, ())
            due_time = refresh_due_time(f"grant-{number}", token, moment, MINUTE)
            assert due_time is not None
            moment = due_time
    assert max(buckets) / (sum(buckets) / len(buckets)) < 1.5
