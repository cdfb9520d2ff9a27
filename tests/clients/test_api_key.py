"""Where the API key goes, and where it never does."""

import socket
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc import code_pb2
from synposter.accounts.v1 import account_service_pb2_grpc as pb_grpc
from synposter_accounts import Accounts, AccountsError, AsyncAccounts, ServiceUnreachable

from tests.clients.either import KEY, Either
from tests.clients.told import Told, failure, info

BOTH = pytest.mark.parametrize("kind", [Accounts, AsyncAccounts])


async def test_every_call_carries_the_key(client: Either, told: Told) -> None:
    await client.call("begin_connect", "p", "twitter")
    await client.call("complete_connect", "p", completion_code="k")
    await client.call("get", "1")
    await client.call("list", "p")
    await client.call("revoke", "1")
    assert [metadata["authorization"] for metadata in told.metadata] == [f"Bearer {KEY}"] * 5


async def test_the_key_is_in_no_repr_and_no_error(client: Either, told: Told) -> None:
    told.line = [failure(code_pb2.UNAUTHENTICATED, info("CALLER_UNKNOWN"))]
    with pytest.raises(AccountsError) as caught:
        await client.call("revoke", "1")
    assert KEY not in repr(client.client)
    assert KEY not in f"{caught.value!r} {caught.value} {vars(caught.value)} {caught.value.__context__!r}"


@BOTH
@pytest.mark.parametrize("key", ["", f"{KEY}\n", f"{KEY} x", f"{KEY}\u00e9"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(kind: type, key: str) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        kind("127.0.0.1:1", key)
    assert KEY not in str(caught.value)


@BOTH
@pytest.mark.parametrize(
    "target",
    [
        "accounts.example.com:443",
        "10.0.0.1:50051",
        "0.0.0.0:50051",
        "[2001:db8::1]:50051",
        "localhost.example.com:50051",
        "ipv4:127.0.0.1:50051,10.0.0.1:50051",
        "dns://10.0.0.1/localhost:50051",
        "",
    ],
)
def test_a_key_is_never_sent_in_clear_beyond_this_machine(kind: type, target: str) -> None:
    with pytest.raises(ValueError, match="credentials"):
        kind(target, KEY)


@BOTH
@pytest.mark.parametrize("host", ["127.0.0.1", "ipv4:127.0.0.1", "localhost"])
async def test_on_this_machine_a_key_may_go_in_clear(kind: type, host: str, served: tuple[Told, str]) -> None:
    told, target = served
    async with Either(kind, f"{host}:{target.rpartition(':')[2]}") as client:
        await client.call("get", "1")
    assert told.metadata[0]["authorization"] == f"Bearer {KEY}"


@BOTH
async def test_a_key_in_clear_goes_through_no_proxy(
    kind: type, served: tuple[Told, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("no_grpc_proxy", raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        async with Either(kind, served[1]) as client:
            assert (await client.call("get", "1")).id == "1"
        with pytest.raises(BlockingIOError):
            proxy.accept()


def certificate() -> tuple[bytes, bytes]:
    """A key and a certificate of its own for 127.0.0.1, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "accounts")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, made.public_bytes(pem)


@BOTH
async def test_with_credentials_the_key_goes_over_tls_to_the_certified_server_only(kind: type) -> None:
    told: Any = Told()
    key, certified = certificate()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_AccountServiceServicer_to_server(told, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certified)]))
    await server.start()
    target = f"127.0.0.1:{port}"
    async with Either(kind, target, credentials=grpc.ssl_channel_credentials(certificate()[1])) as deceived:
        with pytest.raises(ServiceUnreachable):
            await deceived.call("revoke", "1")
    assert told.metadata == []
    async with Either(kind, target, credentials=grpc.ssl_channel_credentials(certified)) as client:
        await client.call("revoke", "1")
    assert told.metadata[0]["authorization"] == f"Bearer {KEY}"
    await server.stop(0)
