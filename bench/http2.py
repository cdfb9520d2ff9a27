"""As much of HTTP/2 (RFC 9113) as it takes to call gRPC at little cost: prepared frames on a blocking socket.

What measures shares the machine with what is measured; a gRPC client in Python costs as much as the server.
"""

from __future__ import annotations

import socket
import struct
from abc import ABC, abstractmethod

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x6, 0x7, 0x8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
WINDOW = 2**31 - 1


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


def header_block(port: int, method: str, key: str) -> bytes:
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", f"127.0.0.1:{port}"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("authorization", f"Bearer {key}"),
    )
    return b"".join(literal(name, value) for name, value in fields)


class Connection(ABC):
    """One connection to loopback, whose calls are all of one method."""

    def __init__(self, port: int, block: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack(">HI", 0x4, WINDOW) + struct.pack(">HI", 0x1, 0)
        self.socket.sendall(
            PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - 65535))
        )
        self._block = block
        self._next_stream = 1
        self._buffer = b""
        self._unacknowledged = 0

    def call(self, messages: list[bytes]) -> list[int]:
        """Begins a call with each; the numbers of their streams."""
        out, streams = [], []
        for message in messages:
            out += (
                frame(HEADERS, END_HEADERS, self._next_stream, self._block),
                frame(DATA, END_STREAM, self._next_stream, b"\x00" + struct.pack(">I", len(message)) + message),
            )
            streams.append(self._next_stream)
            self._next_stream += 2
        self.socket.sendall(b"".join(out))
        return streams

    def receive(self) -> int:
        """Reads what has come; the sum of what `take` makes of it."""
        chunk = self.socket.recv(1 << 18)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        data, at, taken = self._buffer + chunk, 0, 0
        while len(data) - at >= 9:
            length = int.from_bytes(data[at : at + 3])
            if len(data) - at < 9 + length:
                break
            kind, flags = data[at + 3], data[at + 4]
            payload = data[at + 9 : at + 9 + length]
            if kind in (DATA, HEADERS):
                self._unacknowledged += len(payload)
                taken += self.take(kind, flags, int.from_bytes(data[at + 5 : at + 9]), payload)
            else:
                self._control(kind, flags, payload)
            at += 9 + length
        self._buffer = data[at:]
        if self._unacknowledged > 1 << 24:
            self.socket.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unacknowledged)))
            self._unacknowledged = 0
        return taken

    @abstractmethod
    def take(self, kind: int, flags: int, stream: int, payload: bytes) -> int:
        """A frame of one of the calls."""

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self.socket.sendall(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self.socket.sendall(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            raise ConnectionError("the server said GOAWAY")
