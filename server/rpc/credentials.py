"""Who calls: the caller behind an API key, or behind the certificate that the connection was made with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, TypeAlias

import grpc.aio

from server.accounts.callers import Caller
from server.accounts.errors import CallerUnknown

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Of a call. grpc makes it anew whenever it is asked, so it is asked once."""

# What gRPC tells of the subject alternative names of a certificate, by kind, and how each is written in the settings.
# They are kept apart since a URI could be spelt like a host name; the common name plays no part.
SAN_KINDS: Final = (("peer_uri", ""), ("peer_dns", "dns:"))


class Credentials:
    """Knows callers by the SHA-256 of their API keys, which are never held, and by the names in their certificates.

    Only what a client CA has signed arrives here as a certificate: the handshake sees to that.
    """

    def __init__(self, by_key: Mapping[bytes, Caller], by_san: Mapping[str, Caller] | None = None) -> None:
        self._by_key = dict(by_key)
        self._by_san = dict(by_san or {})

    def caller(self, context: Context, metadata: Metadata) -> Caller:
        """Raises CallerUnknown for a key of nobody, names of nobody or of two, and a key that is not of the name."""
        named = self._by_certificate(context) if self._by_san else None
        for name, value in metadata:
            if name == "authorization" and isinstance(value, str):
                keyed = self._by_authorization(value)
                if named is not None and keyed.name != named.name:
                    raise CallerUnknown("the key is not of the caller that the client's certificate names")
                return keyed
        if named is None:
            raise CallerUnknown("send a caller's key as authorization metadata: `Bearer <key>`")
        return named

    def _by_authorization(self, value: str) -> Caller:
        scheme, _, key = value.partition(" ")  # RFC 6750 section 2.1; RFC 9110: schemes ignore case
        caller = self._by_key.get(sha256(key.encode()).digest())
        if caller is None or scheme.lower() != "bearer":
            raise CallerUnknown("the authorization metadata is not `Bearer <key>` with a caller's key")
        return caller

    def _by_certificate(self, context: Context) -> Caller | None:
        found = {
            self._by_san[name].name: self._by_san[name] for name in sans(context.auth_context()) if name in self._by_san
        }
        if len(found) > 1:
            raise CallerUnknown(f"the client's certificate names several callers: {', '.join(sorted(found))}")
        return next(iter(found.values()), None)


def sans(auth_context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """The names in a client's certificate as the settings write them: `dns:host`, or the URI."""
    return [
        f"{prefix}{name.decode('utf-8', 'replace')}"
        for kind, prefix in SAN_KINDS
        for name in auth_context.get(kind, ())
    ]
