"""The domain over the real store in virtual time: seeded worlds where everything fails, and a judge of each step.

A failing seed prints what led to it, and does so again each time it runs. `SIMULATION_SEEDS` says how many seeds the
long form lives through, `SIMULATION_FIRST` where it begins.
"""

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest import mock

import pytest

from server.accounts import refresh
from tests.faults.simulation.sabotage import SABOTAGES
from tests.faults.simulation.virtual_time import VirtualLoop
from tests.faults.simulation.world import Outcome, World

SEEDS = (0, 1, 2, 6, 7, 8)
MANY = int(os.environ.get("SIMULATION_SEEDS", "300"))
FIRST = int(os.environ.get("SIMULATION_FIRST", "1000"))
ENOUGH_TO_NOTICE = 40


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A world logs thousands of failures; its chronicle tells what matters."""
    caplog.set_level(logging.CRITICAL + 1)


def live(seed: int, folder: Path) -> Outcome:
    """One world from its beginning to its end."""
    folder.mkdir(mode=0o700)
    random.seed(seed)  # the backoffs of the domain are drawn from it
    with mock.patch("os.fsync"), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = cast(VirtualLoop, runner.get_loop())
        world = World(seed, folder, loop)
        with mock.patch.object(refresh, "time", SimpleNamespace(monotonic=loop.time)):
            try:
                return runner.run(world.live())
            finally:
                world.engine.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_in_a_world_where_everything_fails_no_grant_is_lost_by_us(seed: int, tmp_path: Path) -> None:
    outcome = live(seed, tmp_path / "world")
    assert outcome.refreshes, "a world in which nothing was refreshed proves nothing"
    assert not outcome.objections, f"seed {seed}: {outcome.objections[0]}"


def test_a_seed_tells_the_same_story_again(tmp_path: Path) -> None:
    first, again = live(SEEDS[0], tmp_path / "first"), live(SEEDS[0], tmp_path / "again")
    assert first.chronicle == again.chronicle


@pytest.mark.long
def test_in_hundreds_of_worlds_no_grant_is_lost_by_us(tmp_path: Path) -> None:
    years, refreshes, counts, objections = 0.0, 0, Counter[str](), []
    for seed in range(FIRST, FIRST + MANY):
        outcome = live(seed, tmp_path / str(seed))
        years, refreshes = years + outcome.account_years, refreshes + outcome.refreshes
        counts.update(outcome.counts)
        objections += [f"seed {seed}: {objection}" for objection in outcome.objections[:1]]
    print(f"{MANY} worlds, {years:.1f} account-years, {refreshes} refreshes; {dict(counts)}")  # noqa: T201 (a measurement)
    assert not objections, "\n\n".join(objections)


@pytest.mark.long
@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.__name__)
def test_the_judge_notices_a_domain_that(
    sabotage: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch)
    for seed in range(ENOUGH_TO_NOTICE):
        objections = live(seed, tmp_path / str(seed)).objections
        if objections and SABOTAGES[sabotage] in objections[0].splitlines()[0]:
            return
    pytest.fail(f"nothing was said in {ENOUGH_TO_NOTICE} worlds")
