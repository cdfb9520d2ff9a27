"""The whole service: in this process with time that is moved, or as the real processes that operators run."""

import dataclasses
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from synposter_accounts import Account, AsyncAccounts

from sandbox.control import Control
from sandbox.local import Local
from sandbox.ports import free_port
from sandbox.server import running
from server.app import App
from server.parts import load_settings
from server.storage.clock import Clock
from tests.moulds import cast_postgres, furnish

PROFILE = "acme/1"

LINKEDIN = """
[platforms.linkedin]
client_id = "sandbox-client"
client_secret_file = "client-secret"
authorization_endpoint = "{sandbox}/oauth/v2/authorization"
token_endpoint = "{sandbox}/oauth/v2/accessToken"
revocation_endpoint = "{sandbox}/oauth/v2/revoke"
identity_endpoint = "{sandbox}/v2/userinfo"
api_base = "{sandbox}"
"""


@dataclasses.dataclass
class Whole:
    """A running service beside a running sandbox, and a caller's client of it."""

    app: App
    clock: Clock
    sandbox: Control
    accounts: AsyncAccounts
    local: Local

    @property
    def return_url(self) -> str:
        return f"{self.local.public_url}/your-app"

    async def come_back(self, username: str = "ada", **consent: str | None) -> dict[str, str]:
        """Begins a connect and plays the browser until it is back at the caller's return URL; its query."""
        begun = await self.accounts.begin_connect(PROFILE, "twitter", return_url=self.return_url)
        return await browse(await self.sandbox.consent(begun.authorization_url, username, **consent))  # type: ignore[arg-type]

    async def connect(
        self,
        username: str = "ada",
        account_id: str | None = None,
        *,
        platform: str = "twitter",
        scopes: Iterable[str] = (),
        **consent: str | None,
    ) -> Account:
        begun = await self.accounts.begin_connect(
            PROFILE, platform, scopes=scopes, return_url=self.return_url, account_id=account_id
        )
        back = await browse(await self.sandbox.consent(begun.authorization_url, username, **consent))  # type: ignore[arg-type]
        [account] = await self.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
        return account

    async def healthy(self) -> bool:
        """Whether a health check says SERVING."""
        async with grpc.aio.insecure_channel(self.local.target) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(HealthCheckRequest())
        return bool(answer.status == HealthCheckResponse.SERVING)

    async def refresh_due(self) -> None:
        """Moves time to after every due time, and runs what the calendar would."""
        self.clock.offset += self.app.platforms["twitter"].rules.default_access_token_lifetime * 0.86
        await self.app.refresher.run_once()


async def browse(callback_url: str) -> dict[str, str]:
    """Opens the callback as a browser would; the query of where it is sent on to."""
    async with aiohttp.ClientSession() as browser, browser.get(callback_url, allow_redirects=False) as response:
        assert response.status == 303, await response.text()
        query = parse_qs(urlsplit(response.headers["Location"]).query)
    return {name: values[0] for name, values in query.items()}


def redirect_uris(local: Local) -> list[str]:
    callbacks = [f"{local.public_url}/oauth/callback/{platform}" for platform in ("twitter", "linkedin")]
    return [*callbacks, f"{local.public_url}/your-app/callback"]


@asynccontextmanager
async def whole_service(folder: Path, database_url: str | None = None, more: str = "") -> AsyncIterator[Whole]:
    """`database_url` names a PostgreSQL database; without it, it is a SQLite file in the folder.

    `more` is added to the configuration.
    """
    async with running() as played:
        port = urlsplit(played.url).port
        assert port is not None
        local = Local(folder, ports={"grpc": free_port(), "http": free_port(), "sandbox": port})
        local.write_files()
        with local.config_file.open("a") as config:
            config.write(LINKEDIN.format(sandbox=played.url) + more)
        if database_url is not None:
            text = local.config_file.read_text().replace("sqlite:///accounts.db", database_url)
            local.config_file.write_text(text.replace("[refresh]", '[refresh]\njournal = "journal"'))
        settings = load_settings(local.config_file)
        furnish(local.config_file)
        app = App(
            settings,
            run_jobs=False,
            monotonic=lambda: time.monotonic() + app.engine.clock.offset.total_seconds(),
        )
        await app.start()
        try:
            async with Control(played.url) as sandbox, AsyncAccounts(local.target, local.api_key) as accounts:
                secret = (folder / "client-secret").read_text()
                await sandbox.add_client("sandbox-client", secret, *redirect_uris(local))
                yield Whole(app, app.engine.clock, sandbox, accounts, local)
        finally:
            await app.stop()


@pytest.fixture(params=["sqlite", "postgres"])
async def whole(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Whole]:
    """The service in this process, on each kind of store; its jobs run when the test says so."""
    url = cast_postgres(request.getfixturevalue("postgres")) if request.param == "postgres" else None
    async with whole_service(tmp_path / "deployment", url) as service:
        yield service


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Local]:
    """The real processes, on free ports, with lifetimes of seconds."""
    with (tmp_path / "processes.log").open("wb") as log:
        local = Local(
            tmp_path / "deployment",
            ports={part: free_port() for part in ("grpc", "http", "sandbox")},
            min_interval="1s",
            identity_interval="1s",
            access_token_seconds=4,
            log=log,
        )
        with local:
            yield local
