"""A load generator for unary gRPC calls: one process, a few connections, prepared frames (RFC 9113).

It sends a different message with each call and counts an answer as good only if it brought a message: a call that fails
has trailers alone. h2load is faster and counts HTTP statuses only; `python -m bench` uses both.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x6, 0x7, 0x8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
WINDOW = 2**31 - 1


@dataclass
class Result:
    """What one run brought: calls a second, and latencies in milliseconds."""

    good: int
    bad: int
    seconds: float
    rate: float
    p50: float
    p99: float


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header field that is never indexed (RFC 7541 section 6.2.2), so the block is the same for each call."""

    def text(each: str) -> bytes:
        raw = each.encode()
        if len(raw) < 127:
            return bytes((len(raw),)) + raw
        rest = len(raw) - 127
        return bytes((127, rest)) + raw if rest < 128 else bytes((127, rest % 128 | 128, rest // 128)) + raw

    return b"\x00" + text(name) + text(value)


class Connection:
    """One connection that keeps `streams` calls under way."""

    def __init__(self, port: int, block: bytes, messages: Sequence[bytes], streams: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack(">HI", 0x4, WINDOW) + struct.pack(">HI", 0x1, 0)
        self.socket.sendall(
            PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - 65535))
        )
        self.block, self.messages, self.streams = block, messages, streams
        self.next_stream, self.sent, self.begun = 1, 0, 0
        self.began: dict[int, float] = {}
        self.brought: set[int] = set()
        self.buffer = b""
        self.unacknowledged = 0
        self.good = self.bad = 0
        self.latencies: list[float] = []

    def send(self, count: int) -> None:
        out = []
        now = time.perf_counter()
        for _ in range(count):
            message = self.messages[self.sent % len(self.messages)]
            out += (
                frame(HEADERS, END_HEADERS, self.next_stream, self.block),
                frame(DATA, END_STREAM, self.next_stream, b"\x00" + struct.pack(">I", len(message)) + message),
            )
            self.began[self.next_stream] = now
            self.next_stream += 2
            self.sent += 1
        self.socket.sendall(b"".join(out))

    def receive(self) -> int:
        """Reads what has come; how many calls ended."""
        chunk = self.socket.recv(1 << 18)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        data, at, ended = self.buffer + chunk, 0, 0
        while len(data) - at >= 9:
            length = int.from_bytes(data[at : at + 3])
            if len(data) - at < 9 + length:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9])
            ended += self.take(kind, flags, stream, data[at + 9 : at + 9 + length])
            at += 9 + length
        self.buffer = data[at:]
        if self.unacknowledged > 1 << 24:
            self.socket.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self.unacknowledged)))
            self.unacknowledged = 0
        return ended

    def take(self, kind: int, flags: int, stream: int, payload: bytes) -> int:
        if kind == DATA:
            self.unacknowledged += len(payload)
            self.brought.add(stream)
        elif kind == SETTINGS and not flags & ACK:
            self.socket.sendall(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self.socket.sendall(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            raise ConnectionError("the server said GOAWAY")
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
    block = b"".join(
        literal(name, value)
        for name, value in (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", f"127.0.0.1:{port}"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("authorization", f"Bearer {key}"),
        )
    )
    selector = selectors.DefaultSelector()
    lines = [Connection(port, block, messages[n::connections] or messages, streams) for n in range(connections)]
    began = time.perf_counter()
    for line in lines:
        selector.register(line.socket, selectors.EVENT_READ, line)
    until = began + seconds
    while (now := time.perf_counter()) < until:
        due = streams if now >= began + ramp else int(streams * (now - began) / ramp)
        for line in lines:
            if line.begun < due:
                line.send(due - line.begun)
                line.begun = due
        for event, _ in selector.select(timeout=until - now if due == streams else 0.001):
            line = event.data
            if ended := line.receive():
                line.send(ended)
    took = time.perf_counter() - began
    for line in lines:
        line.socket.close()
    latencies = sorted(latency for line in lines for latency in line.latencies)
    good = sum(line.good for line in lines)
    return Result(
        good=good,
        bad=sum(line.bad for line in lines),
        seconds=took,
        rate=good / took,
        p50=latencies[len(latencies) // 2] * 1000 if latencies else 0.0,
        p99=latencies[len(latencies) * 99 // 100] * 1000 if latencies else 0.0,
    )


if __name__ == "__main__":
    task = json.load(sys.stdin)
    task["messages"] = [bytes.fromhex(message) for message in task["messages"]]
    print(json.dumps(asdict(run(**task))))
