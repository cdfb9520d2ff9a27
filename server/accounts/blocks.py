"""Blocks: the kill switch of a caller. What operators say about callers reaches every process."""

from __future__ import annotations

import logging

from server.accounts.errors import CallerNotPermitted
from server.accounts.model import Block
from server.accounts.ports import Store

log = logging.getLogger(__name__)


class Blocks:
    """Who is blocked, as the database said last. While it does not answer, those who were blocked stay so."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._blocks: dict[str, Block] = {}

    async def follow(self) -> None:
        """Reads what operators said last. Raises StoreUnavailable."""
        blocks = {block.caller: block for block in await self._store.blocks() if block.reason}
        for caller in blocks.keys() ^ self._blocks.keys():
            log.warning("caller blocked" if caller in blocks else "caller unblocked", extra={"caller": caller})
        self._blocks = blocks

    def blocks(self, caller: str) -> bool:
        return caller in self._blocks

    def check(self, caller: str) -> None:
        """Raises CallerNotPermitted for one that is blocked. Why is for operators: a thief may be listening."""
        if caller in self._blocks:
            raise CallerNotPermitted("an operator has blocked this caller", blocked=caller)
