"""Connections to platforms, which give up on one that answers without end.

aiohttp reads on behind every interim answer (1xx), however many there are, and its parser goes through all that it is
given at once: a quarter of a megabyte of them held up the event loop for three seconds (measured), again and again.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

from server.accounts.calls import LARGEST_BODY

MOST_HEADS: Final = 16
"""Of a request: that of its answer, and of interim ones. There is hardly ever one: nothing that we send asks for it."""
MOST_BYTES: Final = LARGEST_BODY + 1024 * 1024
"""Of the answers to a request as they come, with what frames and packs them: it need not yield a byte of body."""
PARSED_AT_ONCE: Final = 8192
"""Bytes: some 300 of the shortest answers, 80 ms (measured), after which the connection ends."""


class OneAnswer(ResponseHandler):
    """Reads one answer to each request, few interim ones before it, and no more bytes than an answer can have."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._heads = self._bytes = 0

    def set_response_params(self, **params: Any) -> None:
        """aiohttp calls it before each request."""
        self._heads = self._bytes = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            self._give_up()
        elif len(data) <= PARSED_AT_ONCE:
            super().data_received(data)
        else:
            for start in range(0, len(data), PARSED_AT_ONCE):
                if self._heads <= MOST_HEADS:
                    super().data_received(data[start : start + PARSED_AT_ONCE])

    def feed_data(self, data: Any, size: int = 0) -> None:
        """The head of an answer was parsed, an interim one perhaps."""
        self._heads += 1
        if self._heads <= MOST_HEADS:
            super().feed_data(data, size)
        else:
            self._give_up()

    def _give_up(self) -> None:
        if self.transport is not None:
            self.set_exception(aiohttp.ServerDisconnectedError("an answer without end"))
            self.transport.abort()


def is_final(status: int) -> bool:
    """Whether an answer of this status says what became of a request (RFC 9110 section 15)."""
    return 200 <= status < 600


def connector(**options: Any) -> aiohttp.TCPConnector:
    """aiohttp's, with these connections: there is no public switch, and it makes all of them with this factory."""
    made = aiohttp.TCPConnector(**options)
    made._factory = partial(OneAnswer, asyncio.get_running_loop())  # type: ignore[assignment]
    return made
