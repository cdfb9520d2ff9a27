"""The breaker of a platform, and the tally that it counts with."""

from server.accounts.breaker import Breaker
from server.accounts.gate import Gate
from server.accounts.tally import Tally

now = [1000.0]


def clock() -> float:
    return now[0]


def broken(failures: int, successes: int = 0) -> tuple[Breaker, Gate]:
    gate = Gate(64, clock=clock)
    breaker = Breaker(gate)
    for number in range(failures + successes):
        breaker.saw(failed=number >= successes, begun_at=clock())
    return breaker, gate


def test_it_opens_when_half_of_twenty_calls_fail() -> None:
    breaker, gate = broken(10, 10)
    assert breaker.open and gate.held and gate.probing


def test_fewer_calls_or_fewer_failures_do_not_open_it() -> None:
    for failures, successes in ((19, 0), (10, 11), (40, 100)):
        breaker, gate = broken(failures, successes)
        assert not breaker.open and not gate.held


def test_old_failures_are_forgotten() -> None:
    breaker, _ = broken(19)
    now[0] += 31
    breaker.saw(failed=True, begun_at=clock())
    assert not breaker.open


def test_open_it_lets_one_request_through_every_five_seconds() -> None:
    breaker, gate = broken(20)
    for _ in range(3):
        now[0] += 4.9
        assert gate.free == 0
        now[0] += 0.2
        assert gate.free == 1
        gate.enter()
        assert gate.free == 0
        breaker.saw(failed=True, begun_at=clock())
        gate.leave()


def test_the_first_answer_closes_it() -> None:
    breaker, gate = broken(20)
    now[0] += 5.1
    breaker.saw(failed=False, begun_at=clock())
    assert not breaker.open and not gate.probing and gate.free == 56


def test_an_answer_to_what_was_begun_before_it_opened_does_not_close_it() -> None:
    earlier = clock()
    now[0] += 1
    breaker, gate = broken(20)
    breaker.saw(failed=False, begun_at=earlier)
    assert breaker.open and gate.probing


def test_a_last_try_is_risked_every_five_minutes_while_it_is_open() -> None:
    breaker, _ = broken(20)
    assert not breaker.risks_a_last_try()
    now[0] += 300
    assert breaker.risks_a_last_try()
    assert not breaker.risks_a_last_try()
    breaker.close()
    now[0] += 300
    assert not breaker.risks_a_last_try()


def test_a_tally_slides() -> None:
    tally = Tally(30, clock)
    for _ in range(60):
        tally.add(True)
        now[0] += 1
    assert 29 <= tally.total <= 31 and tally.share == 1
    now[0] += 1000
    tally.add(False)
    assert (tally.total, tally.hits) == (1, 0)
