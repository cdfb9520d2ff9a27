"""Python's garbage collector, told what a server knows: what is made by the start stays, and calls leave little."""

from __future__ import annotations

import gc
from typing import Final

COLLECT_AFTER: Final = (5_000, 20, 100)
"""New objects, youngest generations and middle ones. A call leaves six in a circle, its request not among them."""


def spare_the_collector() -> None:
    """Once all is started.

    What was made by now lives as long as the process: each look at it is lost time, and a full collection holds up
    every call. Without those 100,000 objects a refresh takes a tenth less. What is made from now on is mostly gone
    before it is looked for; by Python's own thresholds every fifth change told to 2,000 watchers had a full
    collection in its way, of 150 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
