"""TLS of the gRPC port: certificate, key and client CAs, read from files and read again when these change."""

from __future__ import annotations

import logging
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

log = logging.getLogger(__name__)


class TlsUnusable(Exception):
    """The files cannot be read, or do not belong together; the text says which and why, and shows nothing of them."""


class TlsFiles(NamedTuple):
    """Where they are; without `client_ca` no client is asked for a certificate."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class Contents(NamedTuple):
    """What the files hold; as bytes, so that any change is noticed, whatever it does to the time of the file."""

    cert: bytes
    key: bytes
    client_ca: bytes | None


class Certificates:
    """What the port proves itself with, and which CAs the certificates of clients must come from.

    New files are taken over for new connections once they belong together; until then, half of a replacement may be in
    place, the present ones stay. Whether clients are asked for certificates at all is decided at the start.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Raises TlsUnusable."""
        self._files = files
        self._contents = self._handed_out = read(files)
        self.expire_times = expire_times(self._contents)
        self._refusal = ""

    def look(self) -> None:
        """Takes over what the files hold now, if it changed and belongs together."""
        try:
            contents = read(self._files)
            if contents == self._contents:
                self._refusal = ""
                return
            ends = expire_times(contents)
            if ends["server"] <= datetime.now(UTC):
                raise TlsUnusable(f"the new certificate has ended already, on {ends['server']:%Y-%m-%d}")
        except TlsUnusable as error:
            if self._refusal != str(error):
                log.error("the new TLS files are not taken over", extra={"why": str(error)})
            self._refusal = str(error)
            return
        self._contents, self._refusal, self.expire_times = contents, "", ends
        log.info("new TLS files are taken over", extra={name: str(end) for name, end in self.expire_times.items()})

    def credentials(self) -> grpc.ServerCredentials:
        """What to open the port with."""
        asks = self._files.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(configuration(self._contents), self._changed, asks)  # type: ignore[arg-type]  # None is documented

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC asks this before each handshake, from a thread of its own; None is for no change."""
        contents = self._contents
        if contents is self._handed_out:
            return None
        self._handed_out = contents
        return configuration(contents)


def configuration(contents: Contents) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(contents.key, contents.cert)], contents.client_ca)


def read(files: TlsFiles) -> Contents:
    """Raises TlsUnusable."""
    try:
        if stat.S_IMODE(files.key.stat().st_mode) & 0o077:
            raise TlsUnusable(f"{files.key} is open to other users; run: chmod 600 {files.key}")
        client_ca = files.client_ca.read_bytes() if files.client_ca is not None else None
        return Contents(files.cert.read_bytes(), files.key.read_bytes(), client_ca)
    except OSError as error:
        raise TlsUnusable(f"{error.filename} cannot be read: {error.strerror}") from error


def expire_times(contents: Contents) -> dict[str, datetime]:
    """When the server's certificate ends, and the first of the client CAs. Raises TlsUnusable."""
    chain = certificates(contents.cert, "cert_file")
    try:
        key = load_pem_private_key(contents.key, password=None).public_key()
    except (ValueError, TypeError):
        raise TlsUnusable("key_file holds no PEM private key without a password") from None
    # Without this gRPC would refuse every handshake, and the present pair would be gone.
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if chain[0].public_key().public_bytes(*form) != key.public_bytes(*form):
        raise TlsUnusable("key_file is not the key of the first certificate in cert_file")
    ends = {"server": chain[0].not_valid_after_utc}
    if contents.client_ca is not None:
        ends["client_ca"] = min(each.not_valid_after_utc for each in certificates(contents.client_ca, "client_ca_file"))
    return ends


def certificates(pem: bytes, name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise TlsUnusable(f"{name} holds no PEM certificate") from None
