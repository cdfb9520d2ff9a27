"""What the environment says plays no part in calls on accounts' behalf (row F5)."""

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.accounts.calls import ApiAnswer, ApiCall
from server.accounts.errors import NotSent
from server.accounts.model import Secret
from server.platforms.platform_api import PlatformApi
from server.platforms.registration import Registration
from server.platforms.twitter import TWITTER
from tests.authority import Authority
from tests.platforms.peer import HELD, http, peer, says
from tests.security.acting import acting


async def ask(url: str) -> ApiAnswer:
    """Reads who we are, at an API that lives there."""
    api = PlatformApi(
        TWITTER, Registration("id", Secret("secret"), {"api_base": url}), lambda: datetime.now(UTC), connections=4
    )
    try:
        prepared = api.prepare(ApiCall("an-account", "GET", ("2", "users", "me")))
        return await prepared.send(HELD, timedelta(seconds=5))
    finally:
        await api.close()


@pytest.fixture
async def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[bytes]]:
    """An environment that names a proxy and somebody else's password everywhere; what the proxy received."""
    async with peer(says(http())) as evil:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, evil.url)
        monkeypatch.setenv("no_grpc_proxy", "127.0.0.1")  # the tests' own channel would go there
        (tmp_path / ".netrc").write_text("default login evil password evil\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        yield evil.received


async def test_proxies_and_netrc_of_the_environment_play_no_part(tmp_path: Path, proxy: list[bytes]) -> None:
    async with acting(tmp_path) as service:
        await service.post()
        [sent] = service.peer.received
        assert sent.lower().count(b"authorization:") == 1
        assert f"Bearer {await service.token()}".encode() in sent
    assert proxy == []


async def test_an_authority_of_the_environment_vouches_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    files = authority.server_files(tmp_path)
    (tmp_path / "evil-ca.pem").write_bytes(authority.pem)
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(tmp_path / "evil-ca.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    async with peer(says(http()), tls_of(files.cert, files.key)) as found:
        with pytest.raises(NotSent):
            await ask(found.url)
        assert found.received == []
        # The peer is sound: who believes its authority gets an answer.
        monkeypatch.setattr("certifi.where", lambda: str(tmp_path / "evil-ca.pem"))
        assert (await ask(found.url)).status == 200


async def test_no_key_of_a_connection_is_written_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    files = authority.server_files(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    monkeypatch.setattr("certifi.where", lambda: str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    async with peer(says(http()), tls_of(files.cert, files.key)) as found:
        assert (await ask(found.url)).status == 200
    assert not (tmp_path / "keys.log").exists()


def tls_of(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
