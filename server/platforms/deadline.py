"""A transport for requests that keeps a total deadline and a size cap.

The timeouts of requests are per read: a drip of a byte a second outlives them (`timeout=2` lasted 14 s). So a timer
closes the connection, also while headers drip.
"""

from __future__ import annotations

import socket
import threading
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError

from server.accounts.errors import OutcomeUnknown
from server.platforms.http import LARGEST_REPLY, tls_alone


class Deadline:
    """Cuts off the connections it watches when the time is over; knows whether there was one."""

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._cut_off)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._over = False

    @property
    def connected(self) -> bool:
        """Whether a byte of a request can have been sent."""
        return bool(self._sockets)

    def start(self) -> None:
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()

    def watch(self, connected: socket.socket) -> bool:
        """Says whether there is time left to use it."""
        with self._lock:
            if not self._over:
                self._sockets.append(connected)
            return not self._over

    def _cut_off(self) -> None:
        with self._lock:
            self._over = True
            for each in self._sockets:
                try:
                    # The plain shutdown: that of a TLS socket drops its state under the thread that reads from it.
                    socket.socket.shutdown(each, socket.SHUT_RDWR)
                except OSError:
                    continue


class DeadlineAdapter(HTTPAdapter):
    """For one request: never tried twice, never redirected, at most 64 KiB of body."""

    def __init__(self, seconds: float) -> None:
        self.deadline = Deadline(seconds)
        super().__init__(max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, ssl_context=tls_alone())  # requests adds certifi's authorities
        self.poolmanager.pool_classes_by_scheme = watched_pools(self.deadline)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        """Raises OutcomeUnknown when the reply is too large; else what requests and urllib3 raise."""
        self.deadline.start()
        try:
            response = super().send(request, **{**options, "stream": True})
            response._content = read_body(response)  # requests has no other way to cap a body
            if response.is_redirect:
                # fetch_token has no switch for redirects; without a Location there is nothing to follow.
                response.headers.pop("location")
            return response
        finally:
            self.deadline.stop()
            self.poolmanager.clear()


def read_body(response: requests.Response) -> bytes:
    """Raises OutcomeUnknown when it is too large; else what urllib3 raises."""
    body: bytes = response.raw.read(LARGEST_REPLY + 1, decode_content=True)
    if len(body) > LARGEST_REPLY:
        raise OutcomeUnknown("the reply is too large", status=response.status_code, reply=body)
    return body


def watched_pools(deadline: Deadline) -> dict[str, type[HTTPConnectionPool]]:
    """Connection pools whose connections hand their sockets to `deadline` once they could be written to."""

    def admit(connection: HTTPConnection) -> None:
        if not deadline.watch(connection.sock):
            connection.close()
            raise ConnectTimeoutError(connection, "the time was over before anything was sent")

    class PlainConnection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            admit(self)

    class TlsConnection(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            admit(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = PlainConnection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": PlainPool, "https": TlsPool}
