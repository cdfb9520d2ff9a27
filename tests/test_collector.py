"""The garbage collector is out of the way of what many watchers are told at once."""

import subprocess
import sys

ROUNDS = """
import gc, sys
from server.collector import spare_the_collector
made = [[] for _ in range(100_000)]
if sys.argv[1] == "spared":
    spare_the_collector()
full = []
gc.callbacks.append(lambda phase, info: full.append(phase) if info["generation"] == 2 else None)
for _ in range(20):
    told = [[] for _ in range(20_000)]
    del told
print(len(full), gc.get_freeze_count())
"""


def rounds(how: str) -> tuple[int, int]:
    """Full collections while twenty times something is held for each of many; how many objects are left out of them."""
    ran = subprocess.run([sys.executable, "-c", ROUNDS, how], capture_output=True, text=True, check=True)
    full, frozen = map(int, ran.stdout.split())
    return full, frozen


def test_what_is_told_to_many_is_held_up_by_no_full_collection_and_what_the_start_made_is_looked_at_no_more() -> None:
    full, frozen = rounds("spared")
    full_by_itself, frozen_by_itself = rounds("by itself")
    assert full == 0 < full_by_itself
    assert frozen > 100_000 > frozen_by_itself
