"""Token requests over real sockets, both ways: what was sent, what was not, and what plays no part."""

import asyncio
import contextlib
import gzip
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.accounts.errors import GrantDead, NotSent, OurFault, OutcomeUnknown, PlatformError, PlatformRefused
from server.accounts.grants import TokenSet
from server.accounts.model import Secret
from server.platforms.deadline import Deadline
from server.platforms.http import LARGEST_REPLY, AnswerLimit, Sender
from server.platforms.platform import RegisteredPlatform
from tests.platforms.peer import (
    GOOD,
    Answer,
    drips_body,
    drips_headers,
    exchange,
    floods,
    hangs,
    http,
    peer,
    refresh,
    registered,
    resets,
    says,
)

SHORT = timedelta(seconds=0.5)
Send = Callable[[RegisteredPlatform], Awaitable[TokenSet]]
both = pytest.mark.parametrize("send", [refresh, exchange], ids=["refresh", "exchange"])


@both
async def test_a_good_answer_is_read(send: Send, sender: Sender) -> None:
    async with peer(says(http())) as found:
        assert (await send(registered(found.url, sender))).access_token == Secret("at-canary")
    assert len(found.received) == 1


async def test_what_comes_unasked_is_never_the_answer_to_the_next_refresh(sender: Sender) -> None:
    come = asyncio.Event()

    async def answers_again(writer: asyncio.StreamWriter) -> None:
        writer.write(http())
        await come.wait()
        writer.write(http(GOOD.replace(b"at-canary", b"at-of-another")))

    async with peer(answers_again) as found:
        await refresh(registered(found.url, sender))
        [[(connection, _)]] = sender._opened().connector._conns.values()
        found.answer = says(http())
        come.set()
        async with asyncio.timeout(10):
            while connection.is_connected():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await refresh(registered(found.url, sender))).access_token == Secret("at-canary")


@both
async def test_a_slow_answer_does_not_make_the_expiry_late(send: Send, sender: Sender) -> None:
    asked = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    times = [asked]

    async def answer(writer: asyncio.StreamWriter) -> None:
        times.append(asked + timedelta(seconds=15))
        writer.write(http())

    async with peer(answer) as found:
        fresh = await send(registered(found.url, sender, now=lambda: times[-1]))
    assert fresh.expire_time == asked + timedelta(hours=2)


# --- what was provably not sent


@both
async def test_a_port_where_nobody_listens_was_not_sent_to(send: Send, sender: Sender) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(NotSent):
            await send(registered(f"http://127.0.0.1:{taken.getsockname()[1]}", sender))


@both
async def test_a_name_that_does_not_resolve_was_not_sent_to(send: Send, sender: Sender) -> None:
    with pytest.raises(NotSent):
        await send(registered("http://no-such-host.invalid", sender))


@both
async def test_a_peer_that_accepts_and_never_speaks_tls_was_not_sent_to(send: Send, sender: Sender) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NotSent):
        await send(registered(f"https://127.0.0.1:{silent.getsockname()[1]}", sender, SHORT))


async def test_a_connection_that_comes_up_after_the_deadline_is_not_used(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, over = socket.getaddrinfo, threading.Event()

    class Told(Deadline):
        def _cut_off(self) -> None:
            super()._cut_off()
            over.set()

    def slow(*arguments: Any, **options: Any) -> Any:
        assert over.wait(10)
        return real(*arguments, **options)

    async with peer(says(http())) as found:
        monkeypatch.setattr("server.platforms.deadline.Deadline", Told)
        monkeypatch.setattr("socket.getaddrinfo", slow)
        with pytest.raises(NotSent):
            await exchange(registered(found.url, sender, SHORT))
    assert found.received == []


@both
async def test_a_certificate_that_nobody_vouches_for_gets_no_token(
    send: Send, sender: Sender, certificate: Path
) -> None:
    async with peer(says(http()), tls_of(certificate)) as found:
        with pytest.raises(NotSent):
            await send(registered(found.url, sender))
    assert found.received == []


@both
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("version", "spoken"), [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)])
async def test_a_platform_that_speaks_only_an_old_tls_gets_no_token(
    send: Send,
    version: ssl.TLSVersion,
    spoken: bool,
    sender: Sender,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("certifi.where", lambda: str(certificate))
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(certificate))
    old = tls_of(certificate)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = version
    async with peer(says(http(GOOD)), old) as found:
        with contextlib.nullcontext() if spoken else pytest.raises(NotSent):
            await send(registered(found.url, sender))
    assert len(found.received) == spoken


# --- what may have been done


@both
@pytest.mark.parametrize("answer", [resets, hangs, drips_headers, drips_body, floods], ids=lambda each: each.__name__)
async def test_no_readable_answer_after_sending_is_unknown_and_ends_in_time(
    send: Send, answer: Answer, sender: Sender
) -> None:
    async with peer(answer) as found:
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            await send(registered(found.url, sender, SHORT))
        assert time.monotonic() - began < 10 * SHORT.total_seconds()
    assert len(found.received) == 1


@pytest.mark.parametrize("answer", [drips_headers, drips_body], ids=lambda each: each.__name__)
async def test_a_drip_over_tls_ends_at_the_deadline_too(
    answer: Answer, sender: Sender, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(certificate))
    async with peer(answer, tls_of(certificate)) as found:
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            await exchange(registered(found.url, sender, SHORT))
        assert time.monotonic() - began < 10 * SHORT.total_seconds()
    assert len(found.received) == 1


ENDS = {
    "too short for its length": b"Content-Length: 500\r\n\r\n%b",
    "without a last chunk": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n",
}
"""Heads and bodies of answers whose end is missing."""


def cut_off(ending: str, body: bytes, then: Answer) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        parts = (len(body), body) if b"%x" in ENDS[ending] else (body,)
        writer.write(b"HTTP/1.1 200 OK\r\n" + ENDS[ending] % parts)
        await writer.drain()
        await then(writer)

    return answer


async def ends(writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize("ending", ENDS)
async def test_an_answer_that_is_cut_off_keeps_what_arrived(sender: Sender, ending: str) -> None:
    async with peer(cut_off(ending, GOOD[:-1], ends)) as found:
        with pytest.raises(OutcomeUnknown) as caught:
            await refresh(registered(found.url, sender))
    assert (caught.value.reply, caught.value.status) == (GOOD[:-1], 200)


@pytest.mark.parametrize("then", [ends, resets, hangs])
@pytest.mark.parametrize("ending", ENDS)
async def test_a_pair_that_came_whole_is_not_lost_with_the_end_of_its_answer(
    sender: Sender, ending: str, then: Answer
) -> None:
    async with peer(cut_off(ending, GOOD, then)) as found:
        refreshed = await refresh(registered(found.url, sender, SHORT))
    assert refreshed.refresh_token is not None and refreshed.refresh_token.reveal() == "rt-canary"


@both
async def test_an_answer_that_is_too_large_keeps_its_beginning(send: Send, sender: Sender) -> None:
    async with peer(says(http(GOOD[:-1] + b" " * LARGEST_REPLY))) as found:
        with pytest.raises(OutcomeUnknown, match="too large") as caught:
            await send(registered(found.url, sender))
    assert caught.value.reply.startswith(GOOD[:-1])


@both
async def test_a_small_answer_that_unpacks_to_much_is_cut_off(send: Send, sender: Sender) -> None:
    bomb = gzip.compress(GOOD[:-1] + b" " * (32 * 1024 * 1024))
    assert len(bomb) < LARGEST_REPLY
    async with peer(says(http(bomb, "200 OK", "Content-Encoding: gzip"))) as found:
        with pytest.raises(OutcomeUnknown, match="too large") as caught:
            await send(registered(found.url, sender))
    assert len(caught.value.reply) < 8 * LARGEST_REPLY


async def test_a_request_on_a_connection_that_went_stale_is_not_sent_twice(sender: Sender) -> None:
    answers = [says(http()), resets]

    async def answer(writer: asyncio.StreamWriter) -> None:
        await answers.pop(0)(writer)

    async with peer(answer) as found:
        platform = registered(found.url, sender)
        await refresh(platform)
        with pytest.raises(OutcomeUnknown):
            await refresh(platform)
    assert (len(found.received), found.connections) == (2, 1)


# --- what an answer means, and what plays no part


@both
@pytest.mark.parametrize(
    ("body", "status", "meaning"),
    [
        (b'{"error":"invalid_grant"}', "400 Bad Request", GrantDead),
        (b"busy", "503 Busy", OutcomeUnknown),
        (b"{}", "429 Slow Down", PlatformRefused),
        (b"<html>", "200 OK", OutcomeUnknown),
        (b'{"error":"invalid_client"}', "401 Unauthorized", OurFault),
    ],
    ids=["dead", "503", "429", "html", "invalid_client"],
)
async def test_both_ways_read_an_answer_alike(
    send: Send, body: bytes, status: str, meaning: type[PlatformError], sender: Sender
) -> None:
    async with peer(says(http(body, status))) as found:
        with pytest.raises(PlatformError) as caught:
            await send(registered(found.url, sender))
    assert type(caught.value) is meaning


@both
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_never_followed(send: Send, status: str, sender: Sender) -> None:
    async with peer(says(http())) as elsewhere:
        async with peer(says(http(b"", status, f"Location: {elsewhere.url}/token"))) as found:
            with pytest.raises(OurFault):
                await send(registered(found.url, sender))
        assert len(found.received) == 1
    assert elsewhere.connections == 0


@both
async def test_the_environment_plays_no_part(
    send: Send, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with peer(says(http())) as proxy, peer(says(http(GOOD, "200 OK", "Set-Cookie: a=b; Path=/"))) as found:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login evil password evil\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        for _ in range(2):
            await send(registered(found.url, sender))
    assert proxy.connections == 0
    assert len(found.received) == 2
    for request in found.received:
        assert request.lower().count(b"authorization:") == 1
        assert b"ZXZpb" not in request  # base64 of "evil:"
        assert b"cookie" not in request.lower()


@both
async def test_no_key_of_a_connection_is_written_where_the_environment_says(
    send: Send, sender: Sender, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    monkeypatch.setattr("certifi.where", lambda: str(certificate))
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(certificate))
    async with peer(says(http(GOOD)), tls_of(certificate)) as found:
        await send(registered(found.url, sender))
    assert not (tmp_path / "keys.log").exists()


async def test_a_code_goes_over_plain_http_only_by_the_switch_that_loopback_gets(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OAUTHLIB_INSECURE_TRANSPORT")
    async with peer(says(http())) as found:
        with pytest.raises(OurFault):
            await exchange(registered(found.url, sender))
    assert found.connections == 0


# --- what is logged


@both
async def test_nothing_secret_is_logged_though_every_logger_is_at_debug(
    send: Send, sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    for loud in ("requests_oauthlib", "requests_oauthlib.oauth2_session", "oauthlib", "urllib3", "aiohttp"):
        caplog.set_level(logging.DEBUG, loud)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("the.test").debug("heard")
        async with peer(says(http())) as found:
            await send(registered(found.url, sender))
    assert "heard" in caplog.text
    assert all("canary" not in str(record.__dict__) for record in caplog.records)


# --- a certificate of our own


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a key and a certificate for 127.0.0.1 that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "peer.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


def tls_of(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


# --- the time limit


async def test_what_takes_longer_is_cut_off_and_the_task_goes_on() -> None:
    with pytest.raises(TimeoutError), AnswerLimit(timedelta(seconds=0.02)):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None and not task.cancelling()
    await asyncio.sleep(0)


async def test_a_cancellation_by_somebody_else_stays_one_also_when_the_time_is_over() -> None:
    async def limited() -> None:
        with AnswerLimit(timedelta(seconds=0.02)):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                task.cancel()
                raise

    task = asyncio.create_task(limited())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_done_in_time_is_not_cut_off_afterwards() -> None:
    with AnswerLimit(timedelta(seconds=0.02)):
        pass
    await asyncio.sleep(0.05)
