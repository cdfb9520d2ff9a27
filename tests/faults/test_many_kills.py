"""The long form: a thousand kills over several deployments at once, and the report of them."""

import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.conftest import populate
from tests.faults.kill_report import report
from tests.faults.kill_run import Outcome, carry_out
from tests.faults.kills import AFTER_THE_ANSWER_LEFT, CUT_CONNECTIONS, ON_POSTGRES, ON_SQLITE, Way
from tests.faults.victim import Victim, on_postgres, on_sqlite
from tests.postgres import fresh_database

REPORT = Path("build/faults/kills.txt")
DEPLOYMENTS = 3
"""On SQLite; one on PostgreSQL comes beside them. Two cores have no more to give."""

KILLS_ON_SQLITE = {"K0": 112, "K1": 117, "K2": 90, "K3": 60, "K4": 112, "K5": 133, "K6": 120}
KILLS_ON_POSTGRES = {"K0": 18, "K1": 18, "K2": 18, "K3": 18, "K4": 18, "K5": 20, "K6": 24, "K7": 80}
CUTS = 40
MOST_MISSED = 0.02


def planned(ways: Sequence[Way], counts: dict[str, int]) -> list[Way]:
    """So many kills at each point, evenly by all ways to reach it."""
    plan = []
    for point, count in counts.items():
        of_point = [way for way in ways if way.point == point]
        plan += [of_point[turn % len(of_point)] for turn in range(count)]
    return plan


@pytest.mark.long
async def test_a_thousand_kills_lose_nothing_but_what_was_rotated_and_nowhere_stored(
    tmp_path: Path, postgres: str
) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(16))
    on_files = [*planned(ON_SQLITE, KILLS_ON_SQLITE), *AFTER_THE_ANSWER_LEFT, *AFTER_THE_ANSWER_LEFT]
    on_server = [*planned(ON_POSTGRES, KILLS_ON_POSTGRES), *planned(CUT_CONNECTIONS, {"K7": CUTS})]
    for plan in (on_files, on_server):
        random.Random(1).shuffle(plan)
    outcomes: list[Outcome] = []
    began = time.monotonic()
    with written(outcomes, began), contextlib.ExitStack() as deployments:
        victims = [deployments.enter_context(on_sqlite(tmp_path / f"sqlite-{n}")) for n in range(DEPLOYMENTS)]
        on_the_server = deployments.enter_context(on_postgres(tmp_path / "postgres", fresh_database(postgres)))
        async with asyncio.TaskGroup() as group:
            for victim in victims:
                group.create_task(work_off(victim, on_files, outcomes))
            group.create_task(work_off(on_the_server, on_server, outcomes))
    check(outcomes)


@contextlib.contextmanager
def written(outcomes: list[Outcome], began: float) -> Iterator[None]:
    """Whatever happens, what was found is told."""
    try:
        yield
    finally:
        text = report(outcomes, time.monotonic() - began)
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(text + "\n")
        sys.stdout.write(f"\n\n{text}\nwritten to {REPORT}\n")


async def work_off(victim: Victim, plan: list[Way], outcomes: list[Outcome]) -> None:
    """A point that was missed is tried again."""
    await populate(victim)
    while plan:
        way = plan.pop()
        outcome = await carry_out(way, victim)
        outcomes.append(outcome)
        if outcome.missed:
            plan.append(way)
        assert sum(bool(each.missed) for each in outcomes) <= 10 + MOST_MISSED * len(outcomes), outcome


def check(outcomes: Sequence[Outcome]) -> None:
    hit = [outcome for outcome in outcomes if not outcome.missed and outcome.way.kills]
    kills = Counter(outcome.point for outcome in hit)
    assert kills.total() >= 1000 and set(kills) == {f"K{number}" for number in range(8)} and min(kills.values()) >= 50
    assert not [wrong for outcome in outcomes for wrong in outcome.wrongs]
