"""The bench's watchers: many watches in a process of their own, which tells when each was told of a change.

Lines on its input: `open COUNT` opens watches; `next` waits for a change, and prints when the last of them was told.
"""

from __future__ import annotations

import json
import selectors
import struct
import sys
import time
from collections import defaultdict

from synposter.accounts.v1 import account_service_pb2 as pb

from bench.http2 import DATA, END_STREAM, Connection, header_block

CONNECTIONS = 4
AT_ONCE = 100
"""gRPC refuses some of those that come in one burst of over a thousand."""
CHANGE = pb.WatchAccountsResponse.DESCRIPTOR.fields_by_name["change"].number << 3 | 2
"""The first byte of a response that tells a change."""


class Watcher(Connection):
    """Watches of the same accounts on one connection; each is told something first, and then the changes."""

    def __init__(self, port: int, block: bytes) -> None:
        super().__init__(port, block)
        self._begun: set[int] = set()
        self._parts: defaultdict[int, bytes] = defaultdict(bytes)
        self.last = 0.0

    def take(self, kind: int, flags: int, stream: int, payload: bytes) -> int:
        """How many messages ended that are a change, or the first of their watch."""
        if flags & END_STREAM:
            raise ConnectionError("a watch ended")
        if kind != DATA:
            return 0
        data, told = self._parts[stream] + payload, 0
        while len(data) >= 5 and len(data) >= (end := 5 + struct.unpack(">I", data[1:5])[0]):
            told += stream not in self._begun or data[5] == CHANGE
            self._begun.add(stream)
            data = data[end:]
        self._parts[stream] = data
        if told:
            self.last = time.time()
        return told


class Watchers:
    """All of them."""

    def __init__(self, port: int, method: str, key: str, request: bytes) -> None:
        self._request = request
        self._selector = selectors.DefaultSelector()
        self._watchers = [Watcher(port, header_block(port, method, key)) for _ in range(CONNECTIONS)]
        for watcher in self._watchers:
            self._selector.register(watcher.socket, selectors.EVENT_READ, watcher)
        self._count = 0

    def open(self, count: int) -> None:
        for begun in range(0, count, AT_ONCE):
            some = min(count - begun, AT_ONCE)
            for number, watcher in enumerate(self._watchers):
                watcher.call([self._request] * len(range(number, some, CONNECTIONS)))
            self._take(some)
            self._count += some

    def told(self) -> float:
        """When the last was told of the next change, on the wall clock, which all processes of a machine share."""
        self._take(self._count)
        return max(watcher.last for watcher in self._watchers)

    def _take(self, count: int) -> None:
        while count > 0:
            for event, _ in self._selector.select():
                count -= event.data.receive()


def main() -> None:
    task = json.loads(sys.argv[1])
    watchers = Watchers(task["port"], task["method"], task["key"], bytes.fromhex(task["request"]))
    for line in sys.stdin:
        command, *words = line.split()
        if command == "open":
            watchers.open(int(words[0]))
            print("open", flush=True)
        else:
            print(watchers.told(), flush=True)


if __name__ == "__main__":
    main()
