"""What fuzzing has found stays mended, and hypothesis goes on looking: no input breaks a promise of a parser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CRASHES = Path(__file__).parent / "crashes"


def inputs() -> Iterator[Any]:
    for name, target in TARGETS.items():
        for number, seed in enumerate(target.seeds):
            yield pytest.param(name, seed, id=f"{name}, sound input {number}")
        for path in sorted((CRASHES / name).glob("*")):
            yield pytest.param(name, path.read_bytes(), id=f"{name}, {path.name[:20]}")


@pytest.mark.parametrize(("name", "data"), list(inputs()))
def test_an_input_that_is_sound_or_was_found_by_fuzzing_breaks_no_promise(name: str, data: bytes) -> None:
    TARGETS[name].check(data)


@pytest.mark.parametrize("name", TARGETS)
def test_no_damage_to_a_sound_input_breaks_a_promise(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=500, deadline=None, database=None)
    @given(seed=st.sampled_from(target.seeds), place=st.integers(0, 9000), cut=st.integers(0, 40), put=st.binary())
    def damaged(seed: bytes, place: int, cut: int, put: bytes) -> None:
        place %= len(seed) + 1
        target.check(seed[:place] + put + seed[place + cut :])

    damaged()
