"""A load generator for unary gRPC calls: one process and a few connections.

It sends a different message with each call and counts an answer as good only if it brought a message: a call that fails
has trailers alone. h2load is faster and counts HTTP statuses only; `python -m bench` uses both.
"""

from __future__ import annotations

import json
import selectors
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.http2 import DATA, END_STREAM, HEADERS, Connection, header_block


@dataclass
class Result:
    """What one run brought: calls a second, and latencies in milliseconds."""

    good: int
    bad: int
    seconds: float
    rate: float
    p50: float
    p99: float


class Caller(Connection):
    """One connection that keeps calls under way."""

    def __init__(self, port: int, block: bytes, messages: Sequence[bytes]) -> None:
        super().__init__(port, block)
        self.messages = messages
        self.sent = self.begun = 0
        self.began: dict[int, float] = {}
        self.brought: set[int] = set()
        self.good = self.bad = 0
        self.latencies: list[float] = []

    def send(self, count: int) -> None:
        now = time.perf_counter()
        some = [self.messages[number % len(self.messages)] for number in range(self.sent, self.sent + count)]
        self.began.update(dict.fromkeys(self.call(some), now))
        self.sent += count

    def take(self, kind: int, flags: int, stream: int, payload: bytes) -> int:
        """Whether the call ended."""
        if kind == DATA:
            self.brought.add(stream)
        if not (kind == HEADERS and flags & END_STREAM):
            return 0
        self.latencies.append(time.perf_counter() - self.began.pop(stream))
        if stream in self.brought:
            self.brought.discard(stream)
            self.good += 1
        else:
            self.bad += 1
        return 1


def run(
    port: int,
    method: str,
    key: str,
    messages: Sequence[bytes],
    *,
    seconds: float,
    connections: int,
    streams: int,
    ramp: float = 0.0,
) -> Result:
    """Calls `method` as fast as it is answered, for `seconds`; the first calls are spread over `ramp`."""
    block = header_block(port, method, key)
    selector = selectors.DefaultSelector()
    callers = [Caller(port, block, messages[n::connections] or messages) for n in range(connections)]
    began = time.perf_counter()
    for caller in callers:
        selector.register(caller.socket, selectors.EVENT_READ, caller)
    until = began + seconds
    while (now := time.perf_counter()) < until:
        due = streams if now >= began + ramp else int(streams * (now - began) / ramp)
        for caller in callers:
            if caller.begun < due:
                caller.send(due - caller.begun)
                caller.begun = due
        for event, _ in selector.select(timeout=until - now if due == streams else 0.001):
            caller = event.data
            if ended := caller.receive():
                caller.send(ended)
    took = time.perf_counter() - began
    for caller in callers:
        caller.socket.close()
    latencies = sorted(latency for caller in callers for latency in caller.latencies)
    good = sum(caller.good for caller in callers)
    return Result(
        good=good,
        bad=sum(caller.bad for caller in callers),
        seconds=took,
        rate=good / took,
        p50=latencies[len(latencies) // 2] * 1000 if latencies else 0.0,
        p99=latencies[len(latencies) * 99 // 100] * 1000 if latencies else 0.0,
    )


if __name__ == "__main__":
    task = json.load(sys.stdin)
    task["messages"] = [bytes.fromhex(message) for message in task["messages"]]
    print(json.dumps(asdict(run(**task))))
