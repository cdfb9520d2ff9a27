"""The bench's watchers: many watches in a process of their own, which tells when each was told of a change.

Lines on its input: `open COUNT` opens watches; `next` waits for a change, and prints when the last of them was told.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import grpc.aio
import uvloop
from synposter.accounts.v1 import account_service_pb2 as pb

CHANNELS = 4
AT_ONCE = 100
"""gRPC refuses some of those that come in one burst of over a thousand."""
CHANGE = pb.WatchAccountsResponse.DESCRIPTOR.fields_by_name["change"].number << 3 | 2
"""The first byte of a response that tells a change."""


class Watchers:
    """Watches of the same accounts; each is told something first, and then the changes."""

    def __init__(self, port: int, method: str, key: str, request: bytes) -> None:
        self._channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("bench.channel", number)])  # else they share one
            for number in range(CHANNELS)
        ]
        self._method, self._request = method, request
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._tasks: list[asyncio.Task[None]] = []
        self._told = asyncio.Semaphore(0)
        self._last = 0.0

    async def open(self, count: int) -> None:
        while count:
            some = min(count, AT_ONCE)
            for number in range(some):
                method = self._channels[number % CHANNELS].unary_stream(self._method)
                self._tasks.append(asyncio.create_task(self._watch(method)))
            for _ in range(some):
                await self._told.acquire()
            count -= some

    async def told(self) -> float:
        """When the last was told of the next change, on the wall clock, which all processes of a machine share."""
        for _ in self._tasks:
            await self._told.acquire()
        return self._last

    async def _watch(self, method: Any) -> None:
        first = True
        async for response in method(self._request, metadata=self._metadata):
            if first or response[0] == CHANGE:
                self._last = time.time()
                self._told.release()
            first = False


async def main() -> None:
    task = json.loads(sys.argv[1])
    watchers = Watchers(task["port"], task["method"], task["key"], bytes.fromhex(task["request"]))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        if line[0] == "open":
            await watchers.open(int(line[1]))
            print("open", flush=True)
        else:
            print(await watchers.told(), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
