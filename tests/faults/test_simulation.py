"""The domain over the real store in virtual time: seeded worlds where everything fails, and a judge of each step."""

import asyncio
import os
import random
from pathlib import Path
from unittest import mock

import pytest

from tests.faults.simulation.virtual_time import VirtualLoop
from tests.faults.simulation.world import Outcome, World

SEEDS = range(8)
MANY = int(os.environ.get("SIMULATION_SEEDS", "300"))


def live(seed: int, folder: Path) -> Outcome:
    """One world from its beginning to its end."""
    folder.mkdir(mode=0o700)
    random.seed(seed)  # the backoffs of the domain are drawn from it
    world: World | None = None
    with mock.patch("os.fsync"), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        try:
            world = World(seed, folder, loop)
            return runner.run(world.live())
        finally:
            if world is not None:
                world.engine.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_in_a_world_where_everything_fails_no_grant_is_lost_by_us(seed: int, tmp_path: Path) -> None:
    outcome = live(seed, tmp_path / "world")
    assert not outcome.objections, f"seed {seed}: {outcome.objections[0]}"
