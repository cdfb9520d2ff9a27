"""TLS on the gRPC port (rows E1, E8): who gets through the handshake, and files that are replaced under load."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from synposter.accounts.v1 import account_service_pb2 as pb

from server.rpc.certificates import Certificates, TlsFiles, TlsUnusable
from tests.authority import Authority
from tests.rpc.conftest import ID, Edge, bearer

GET = pb.GetAccountRequest(id=ID)
OURS, THEIRS = Authority("ours"), Authority("theirs")
CALLER = OURS.issue("spiffe://test/caller")


@asynccontextmanager
async def serving(files: TlsFiles, credentials: grpc.ChannelCredentials) -> AsyncIterator[tuple[Edge, Certificates]]:
    edge, certificates = Edge(), Certificates(files)
    await edge.start(certificates, credentials)
    try:
        yield edge, certificates
    finally:
        await edge.stop()


async def outcome(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """What a new connection gets for a call with a good key, a health check and a method that there is none of.

    OK for the last is that it was heard and is unknown. All three are the same, or the test fails.
    """
    channel = grpc.aio.secure_channel(address, credentials) if credentials else grpc.aio.insecure_channel(address)
    codes = set()
    async with channel:
        get = channel.unary_unary("/synposter.accounts.v1.AccountService/GetAccount")
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        unknown = channel.unary_unary("/synposter.accounts.v1.AccountService/Nothing")
        for call, request in ((get, GET.SerializeToString()), (check, b""), (unknown, b"")):
            try:
                await call(request, metadata=bearer("full-key"), timeout=5)
                codes.add(grpc.StatusCode.OK)
            except grpc.aio.AioRpcError as error:
                heard = call is unknown and error.code() is grpc.StatusCode.UNIMPLEMENTED
                codes.add(grpc.StatusCode.OK if heard else error.code())
    [code] = codes
    return code


async def test_over_tls_a_key_is_enough_where_no_certificates_are_asked_for(tmp_path: Path) -> None:
    async with serving(OURS.server_files(tmp_path), OURS.credentials()) as (edge, _):
        await edge.call("GetAccount", GET)


STRANGERS = {
    "in clear": None,
    "without a certificate": OURS.credentials(),
    "with one of another authority": OURS.credentials(THEIRS.issue("spiffe://test/caller")),
    "with one that has ended": OURS.credentials(OURS.issue("spiffe://test/caller", expires_in=timedelta(days=-1))),
    "with one that signed itself": OURS.credentials(Authority("self").issue("spiffe://test/caller")),
}


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_where_certificates_are_asked_for_nothing_is_answered_without_one(tmp_path: Path, stranger: str) -> None:
    files = OURS.server_files(tmp_path, clients_of=OURS)
    async with serving(files, OURS.credentials(CALLER)) as (edge, _):
        assert await outcome(edge.address, OURS.credentials(CALLER)) is grpc.StatusCode.OK
        edge.use_cases.calls.clear()
        assert await outcome(edge.address, STRANGERS[stranger]) is grpc.StatusCode.UNAVAILABLE
        assert edge.use_cases.calls == []


async def test_a_certificate_does_not_make_up_for_a_missing_key(tmp_path: Path) -> None:
    files = OURS.server_files(tmp_path, clients_of=OURS)
    async with serving(files, OURS.credentials(CALLER)) as (edge, _):
        for metadata in ((), bearer("nobody"), (("x-forwarded-client-cert", "URI=spiffe://test/other"),)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await edge.stub.GetAccount(GET, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    async with serving(OURS.server_files(tmp_path), OURS.credentials()) as (edge, _):
        for version, holds in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
            context = ssl.create_default_context(cadata=OURS.pem.decode())
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.set_alpn_protocols(["h2"])
            context.minimum_version = context.maximum_version = version
            host, port = edge.address.split(":")
            try:
                _, writer = await asyncio.open_connection(host, int(port), ssl=context)
            except (ssl.SSLError, ConnectionError):
                assert not holds
            else:
                writer.close()
                assert holds


async def test_files_are_replaced_under_load_and_no_call_fails(tmp_path: Path) -> None:
    """Callers get the new bundle first, then servers their new certificates: both CAs are trusted in between."""
    files = OURS.server_files(tmp_path, clients_of=OURS)
    both = grpc.ssl_channel_credentials(OURS.pem + THEIRS.pem, *CALLER)
    new = THEIRS.credentials(THEIRS.issue("spiffe://test/caller"))
    async with serving(files, both) as (edge, certificates):
        answered, replaced = 0, asyncio.Event()

        async def load() -> None:
            nonlocal answered
            while not replaced.is_set():
                async with grpc.aio.secure_channel(edge.address, both) as channel:
                    fresh = channel.unary_unary("/synposter.accounts.v1.AccountService/GetAccount")
                    await fresh(GET.SerializeToString(), metadata=bearer("full-key"), timeout=10)
                await edge.call("GetAccount", GET)
                answered += 2

        calling = asyncio.gather(*(load() for _ in range(4)))
        for _ in range(5):
            for authority in (THEIRS, OURS, THEIRS):
                authority.server_files(tmp_path)
                (tmp_path / "ca.pem").write_bytes(OURS.pem + THEIRS.pem)
                certificates.look()
                before = answered
                while answered < before + 8:  # noqa: ASYNC110 (others count)
                    await asyncio.sleep(0)
        replaced.set()
        await calling
        assert await outcome(edge.address, new) is grpc.StatusCode.OK
        (tmp_path / "ca.pem").write_bytes(THEIRS.pem)
        certificates.look()
        assert await outcome(edge.address, both) is grpc.StatusCode.UNAVAILABLE, "the old authority is trusted no more"
        assert await outcome(edge.address, new) is grpc.StatusCode.OK


def half_replaced(folder: Path) -> None:
    (folder / "server.pem").write_bytes(OURS.issue("dns:localhost", "ip:127.0.0.1")[1])


def opened_to_others(folder: Path) -> None:
    OURS.server_files(folder)
    (folder / "server.key").chmod(0o640)


BROKEN = {
    "half replaced": (half_replaced, "not the key of"),
    "an empty certificate": (lambda folder: (folder / "server.pem").write_bytes(b""), "no PEM certificate"),
    "an empty key": (lambda folder: (folder / "server.key").write_bytes(b""), "no PEM private key"),
    "a CA that is none": (lambda folder: (folder / "ca.pem").write_bytes(b"canary"), "client_ca_file holds no PEM"),
    "gone": (lambda folder: (folder / "server.key").unlink(), "cannot be read"),
    "a key open to others": (opened_to_others, "chmod 600"),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_files_that_do_not_belong_together_change_nothing_and_stop_a_start(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = OURS.server_files(tmp_path, clients_of=OURS)
    async with serving(files, OURS.credentials(CALLER)) as (edge, certificates):
        breaks, told = BROKEN[how]
        breaks(tmp_path)
        certificates.look()
        certificates.look()
        assert await outcome(edge.address, OURS.credentials(CALLER)) is grpc.StatusCode.OK
        [line] = [record for record in caplog.records if record.name == "server.rpc.certificates"]
        assert told in line.why and "canary" not in line.why  # type: ignore[attr-defined]
        with pytest.raises(TlsUnusable, match=told):
            Certificates(files)


async def test_when_certificates_end_is_known_also_of_those_that_came_later(tmp_path: Path) -> None:
    certificates = Certificates(OURS.server_files(tmp_path, clients_of=THEIRS, expires_in=timedelta(days=3)))
    now = datetime.now(UTC)
    assert certificates.expire_times["server"] - now < timedelta(days=3) < certificates.expire_times["client_ca"] - now
    OURS.server_files(tmp_path, expires_in=timedelta(days=5))
    certificates.look()
    assert timedelta(days=4) < certificates.expire_times["server"] - now < timedelta(days=5, minutes=1)


async def test_a_certificate_that_has_ended_takes_no_ones_place(tmp_path: Path) -> None:
    certificates = Certificates(OURS.server_files(tmp_path, expires_in=timedelta(days=3)))
    before = certificates.expire_times
    OURS.server_files(tmp_path, expires_in=timedelta(days=-1))
    certificates.look()
    assert certificates.expire_times == before
    OURS.server_files(tmp_path, expires_in=timedelta(days=5))
    certificates.look()
    assert certificates.expire_times != before


async def test_health_is_told_to_whoever_gets_through_the_handshake(tmp_path: Path) -> None:
    files = OURS.server_files(tmp_path, clients_of=OURS)
    async with serving(files, OURS.credentials(CALLER)) as (edge, _):
        answer = await health_pb2_grpc.HealthStub(edge.channel).Check(HealthCheckRequest())
        assert answer.status == HealthCheckResponse.SERVING
