"""A certificate authority for tests: servers and callers with the names, and the lifetimes, that a test wants."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from server.rpc.certificates import TlsFiles


class Authority:
    """Issues certificates; `pem` is its own."""

    def __init__(self, name: str = "Tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = name_of(name)
        ends = datetime.now(UTC) + timedelta(days=30)
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        self._certificate = builder(self._name, self._name, self._key.public_key(), ends).add_extension(
            constraint, critical=True
        ).sign(self._key, hashes.SHA256())  # fmt: skip
        self.pem = self._certificate.public_bytes(Encoding.PEM)

    def issue(self, *sans: str, expires_in: timedelta = timedelta(days=7), name: str = "leaf") -> tuple[bytes, bytes]:
        """A key and its certificate, as PEM; SANs as `dns:…`, `ip:…` or a URI."""
        key = ec.generate_private_key(ec.SECP256R1())
        ends = datetime.now(UTC) + expires_in
        certificate = builder(name_of(name), self._name, key.public_key(), ends).add_extension(
            x509.SubjectAlternativeName([general_name(san) for san in sans]), critical=False
        ).sign(self._key, hashes.SHA256())  # fmt: skip
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem, certificate.public_bytes(Encoding.PEM)

    def server_files(self, folder: Path, *, clients_of: "Authority | None" = None, **given: timedelta) -> TlsFiles:
        """Writes what a server on loopback needs, over what is there; with `clients_of` it asks for certificates."""
        key, certificate = self.issue("dns:localhost", "ip:127.0.0.1", **given)
        files = TlsFiles(folder / "server.pem", folder / "server.key", folder / "ca.pem" if clients_of else None)
        files.cert.write_bytes(certificate)
        files.key.write_bytes(key)
        files.key.chmod(0o600)
        if files.client_ca is not None and clients_of is not None:
            files.client_ca.write_bytes(clients_of.pem)
        return files

    def credentials(self, pair: tuple[bytes, bytes] | None = None) -> grpc.ChannelCredentials:
        """Those of a client that trusts this authority, with its own certificate if it has one."""
        return grpc.ssl_channel_credentials(self.pem, *(pair or ()))


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, ends: datetime
) -> x509.CertificateBuilder:
    begins = ends - timedelta(days=60)
    return x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), begins, ends)


def general_name(san: str) -> x509.GeneralName:
    kind, _, rest = san.partition(":")
    if kind == "dns":
        return x509.DNSName(rest)
    return x509.IPAddress(ip_address(rest)) if kind == "ip" else x509.UniformResourceIdentifier(san)
