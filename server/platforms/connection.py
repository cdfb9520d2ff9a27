"""Connections to platforms, which bring one answer to each request and nothing else.

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
    """Reads one answer to each request, few interim ones before it, and no more bytes than an answer can have.

    What comes while nothing is asked ends the connection: aiohttp would take it for the answer to the next request,
    which is another account's. Load balancers say 408 in that way before they close.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._heads = self._bytes = 0
        self._is_over, self._has_head = True, False

    def set_response_params(self, **params: Any) -> None:
        """aiohttp calls it before each request."""
        self._heads = self._bytes = 0
        self._is_over = self._has_head = False
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            self._give_up()
        elif len(data) <= PARSED_AT_ONCE:
            self._parse(data)
        else:
            for start in range(0, len(data), PARSED_AT_ONCE):
                self._parse(data[start : start + PARSED_AT_ONCE])

    def feed_data(self, data: Any, size: int = 0) -> None:
        """The head of an answer was parsed, an interim one perhaps."""
        self._heads += 1
        if self._has_head or self._heads > MOST_HEADS:
            self._give_up()
        else:
            self._has_head = not is_interim(data[0].code)
            super().feed_data(data, size)

    def _parse(self, data: bytes) -> None:
        # Without data aiohttp goes on with what it has put off.
        if data and (self._is_over or (self._has_head and self._payload is not None and self._payload.is_eof())):
            self._give_up()
        else:
            super().data_received(data)

    def _give_up(self) -> None:
        self._is_over = True
        if self.transport is not None:
            self.set_exception(aiohttp.ServerDisconnectedError("more than one answer"))
            self.transport.abort()


def is_interim(status: int) -> bool:
    """Whether aiohttp reads on behind it. 101 is none: nothing that we know is spoken behind it."""
    return 100 <= status < 200 and status != 101


def is_final(status: int) -> bool:
    """Whether an answer of this status says what became of a request (RFC 9110 section 15)."""
    return 200 <= status < 600


def connector(**options: Any) -> aiohttp.TCPConnector:
    """aiohttp's, with these connections: there is no public switch, and it makes all of them with this factory."""
    made = aiohttp.TCPConnector(**options)
    made._factory = partial(OneAnswer, asyncio.get_running_loop())  # type: ignore[assignment]
    return made
