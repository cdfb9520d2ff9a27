"""What the files must be that the settings name: there, of the right kind, and closed to other users."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

from server.config.settings import Tls


def check_secret_file(key: str, path: Path) -> Iterator[str]:
    yield from check_file(key, path, 0o077, f"{path} is open to other users; run: chmod 600 {path}")


def check_tls(tls: Tls, folder: Path) -> Iterator[str]:
    """The files as OpenSSL takes them; the same is checked again whenever they change."""
    cert, key = folder / tls.cert_file, folder / tls.key_file
    ca = folder / tls.client_ca_file if tls.client_ca_file is not None else None
    problems = [*check_trust_file("server.tls.cert_file", cert), *check_secret_file("server.tls.key_file", key)]
    ca_problems = [*check_trust_file("server.tls.client_ca_file", ca)] if ca is not None else []
    yield from problems + ca_problems
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        if not problems:
            context.load_cert_chain(cert, key, password="")  # else OpenSSL asks at the terminal
    except (ssl.SSLError, ValueError):
        yield "server.tls: cert_file and key_file must be PEM, and the key that of the first certificate"
    try:
        if ca is not None and not ca_problems:
            context.load_verify_locations(ca)
    except ssl.SSLError:
        yield "server.tls.client_ca_file: holds no PEM certificate"


def check_trust_file(key: str, path: Path) -> Iterator[str]:
    """A file that is no secret; whoever can write it decides who is trusted."""
    yield from check_file(key, path, 0o022, f"{path} can be written by other users; run: chmod go-w {path}")


def check_file(key: str, path: Path, forbidden_mode: int, told: str) -> Iterator[str]:
    try:
        mode = path.stat().st_mode
        # Only a regular file is opened: a pipe would block the start.
        empty = stat.S_ISREG(mode) and not path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        yield f"{key}: {path} cannot be read: {getattr(error, 'strerror', None) or 'not text'}"
        return
    if not stat.S_ISREG(mode):
        yield f"{key}: {path} is not a regular file"
    elif stat.S_IMODE(mode) & forbidden_mode:
        yield f"{key}: {told}"
    elif empty:
        yield f"{key}: {path} is empty"
