"""SIGKILL at every crash point: nothing is lost but what the platform rotated and no disk of ours ever had."""

import time

import pytest

from tests.faults.kill_run import Outcome, carry_out
from tests.faults.kills import CUT_CONNECTIONS, ON_POSTGRES, ON_SQLITE, Way
from tests.faults.victim import Victim


def one_per_point(ways: tuple[Way, ...]) -> list[Way]:
    return list({way.point: way for way in reversed(ways)}.values())[::-1]


def named(way: Way) -> str:
    return f"{way.point}_{way.how.replace(' ', '_')}"


def check(outcome: Outcome) -> None:
    assert not outcome.missed, outcome.missed
    assert not outcome.wrongs, "\n".join(outcome.wrongs)


@pytest.mark.parametrize("way", one_per_point(ON_SQLITE), ids=named)
async def test_a_kill_loses_no_grant_but_one_rotated_and_nowhere_stored(victim: Victim, way: Way) -> None:
    check(await carry_out(way, victim))


@pytest.mark.parametrize("way", [way for way in ON_POSTGRES if way.point == "K7"], ids=named)
async def test_a_kill_during_a_commit_on_postgres_loses_nothing(victim_on_postgres: Victim, way: Way) -> None:
    check(await carry_out(way, victim_on_postgres))


@pytest.mark.parametrize("way", CUT_CONNECTIONS[:2], ids=named)
async def test_a_commit_of_unknown_outcome_loses_nothing(victim_on_postgres: Victim, way: Way) -> None:
    check(await carry_out(way, victim_on_postgres))


@pytest.mark.alone
async def test_a_killed_server_serves_again_within_three_seconds(victim: Victim) -> None:
    await victim.until_settled()
    began = time.monotonic()
    victim.local.kill("server")
    await victim.restart()
    assert time.monotonic() - began < 3
