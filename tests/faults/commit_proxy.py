"""A proxy between a server and PostgreSQL that knows a COMMIT when it sees one, and cuts or holds the connection there.

It reads the frontend's messages as far as it must: which statement is executed, by text or by prepared name.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

CLAIM = b'"sends" + '
REFRESH = b'"last_refresh_time" = '
"""What only the claim and only the commit of a refresh contain."""

READY = b"Z\x00\x00\x00\x05"
"""ReadyForQuery, the last message of a reply: the commit is carried out."""

PATIENCE = 20.0


class CommitProxy:
    """`with CommitProxy(url) as proxy:`; the server's URL is `proxy.url`. It passes everything on until it is told."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._upstream = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}"))
        self._connections: list[Connection] = []
        self._lock = threading.Lock()
        self._refusing = False
        self.disarm()

    def arm(self, statement: bytes, *, forward: bool, cut: bool, times: int = 1) -> None:
        """The next COMMITs of a transaction that executed `statement`: passed on or not, their reply swallowed; then
        the connection is cut, or left hanging."""
        with self._lock:
            self._statement, self._forward, self._cut, self._times, self.hits = statement, forward, cut, times, 0

    def disarm(self) -> None:
        self.arm(b"", forward=True, cut=False, times=0)

    async def until_hit(self, count: int = 1) -> None:
        """Returns when `count` COMMITs were met; those that were passed on are carried out by then."""
        deadline = time.monotonic() + PATIENCE
        while self.hits < count:
            assert time.monotonic() < deadline, f"{self.hits} of {count} commits were met"
            await asyncio.sleep(0.005)

    def refuse(self) -> None:
        """The database is away: what is open is cut, what is new is refused."""
        self._refusing = True
        for connection in list(self._connections):
            connection.end()

    def admit(self) -> None:
        self._refusing = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.refuse()

    # --- for its connections

    def takes(self, executed: set[bytes]) -> bool:
        """Whether the COMMIT that ends `executed` is one to stop."""
        with self._lock:
            if self._times and any(self._statement in statement for statement in executed):
                self._times -= 1
                return True
            return False

    @property
    def forwards(self) -> bool:
        return self._forward

    def hit(self, connection: "Connection") -> None:
        with self._lock:
            self.hits += 1
        if self._cut:
            connection.end()

    def ended(self, connection: "Connection") -> bool:
        """A direction of it is over; whether it was the last one."""
        with self._lock:
            connection.directions -= 1
            if connection.directions == 0:
                self._connections.remove(connection)
            return connection.directions == 0

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._refusing:
                    client.close()
                    continue
                connection = Connection(self, client, socket.create_connection(self._upstream))
                self._connections.append(connection)
                connection.start()


class Connection:
    """One connection, a thread for each direction."""

    def __init__(self, proxy: CommitProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._executed: set[bytes] = set()
        self._prepared: dict[bytes, bytes] = {}
        self._swallowing = False
        self.directions = 2

    def start(self) -> None:
        for direction in (self._requests, self._replies):
            threading.Thread(target=self._run, args=(direction,), daemon=True).start()

    def end(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _run(self, direction: Callable[[], None]) -> None:
        with suppress(OSError, EOFError):
            direction()
        self.end()
        if self._proxy.ended(self):
            self._client.close()
            self._server.close()

    def _requests(self) -> None:
        for kind, message in messages(self._client):
            statement = self._statement_run_by(kind, message)
            if statement.startswith(b"BEGIN"):
                self._executed.clear()
            elif statement.startswith(b"COMMIT") and self._proxy.takes(self._executed):
                self._swallowing = True
                if not self._proxy.forwards:
                    self._proxy.hit(self)
                    continue
            elif statement:
                self._executed.add(statement)
            if not self._swallowing or self._proxy.forwards:
                self._server.sendall(message)

    def _replies(self) -> None:
        swallowed = b""
        while chunk := self._server.recv(65536):
            if not self._swallowing:
                self._client.sendall(chunk)
                continue
            # The client waits for every reply, so what comes now answers its COMMIT.
            before, swallowed = swallowed, swallowed + chunk
            if READY in swallowed and READY not in before:
                self._proxy.hit(self)

    def _statement_run_by(self, kind: bytes, message: bytes) -> bytes:
        """The SQL that a message executes, empty if none. Prepared statements are known by their names."""
        body = message[5:]
        if kind == b"Q":
            return body
        if kind == b"P":
            name, sql = body.split(b"\0", 2)[:2]
            self._prepared[name] = sql
        if kind == b"B":
            return self._prepared.get(body.split(b"\0", 2)[1], b"")
        return b""


def messages(source: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    """Kind and bytes of each message; the first ones of a connection have no kind."""
    untyped = True
    while True:
        kind = b"" if untyped else read(source, 1)
        size = read(source, 4)
        rest = read(source, int.from_bytes(size) - 4)
        if untyped:
            untyped = int.from_bytes(rest[:4]) != 3 << 16  # a request for TLS comes before the start-up message
        yield kind, kind + size + rest


def read(source: socket.socket, count: int) -> bytes:
    """Raises EOFError."""
    found = b""
    while len(found) < count:
        chunk = source.recv(count - len(found))
        if not chunk:
            raise EOFError
        found += chunk
    return found
