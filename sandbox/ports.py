"""Free ports, given out one after another to all who ask on this machine, so that no two servers meet on one."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

PORTS = range(20_000, 32_000)
"""Below those that Linux gives to outgoing connections, which would come between the question and the server."""


def free_port() -> int:
    """A port of loopback on which nothing listens, and which nobody who asks here is given for a long while."""
    turns = os.open(Path(tempfile.gettempdir()) / f"synposter-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(turns, fcntl.LOCK_EX)
        turn = int(os.pread(turns, 20, 0) or 0)
        while not is_free(port := PORTS[turn % len(PORTS)]):
            turn += 1
        os.pwrite(turns, b"%d" % (turn + 1), 0)
        return port
    finally:
        os.close(turns)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
