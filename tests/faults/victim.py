"""A deployment whose server is killed again and again: real processes, and accounts connected through the real flow."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synposter_accounts import Account, AsyncAccounts

from sandbox.control import Control
from sandbox.demo import Demo
from sandbox.local import Local
from sandbox.ports import free_port
from tests.faults.commit_proxy import CommitProxy
from tests.faults.remains import Database, PostgresServer, Remains, SqliteFile, StoredGrant

USERS = ("ada", "grace", "alan", "edsger")
PATIENCE = 30.0
ACCESS_TOKEN_SECONDS = 250
"""Less than five minutes: a refresh of unknown outcome is tried again at once. And longer than any kill takes."""


@dataclass
class Victim:
    """A running deployment; its server dies and comes back, the rest stays."""

    local: Local
    remains: Remains
    proxy: CommitProxy | None = None
    """Between the server and its PostgreSQL."""
    account_ids: dict[str, str] = field(default_factory=dict)
    """By the user's name at the platform."""
    _logged: int = 0

    @contextlib.asynccontextmanager
    async def callers(self) -> AsyncIterator[tuple[AsyncAccounts, Control]]:
        """Clients of the server as it runs now, and of the sandbox."""
        async with AsyncAccounts(self.local.target, self.local.api_key) as accounts, self.sandbox() as sandbox:
            yield accounts, sandbox

    def sandbox(self) -> Control:
        return Control(str(self.local.sandbox_url))

    async def connect(self, *usernames: str) -> None:
        """Through the real flow; an account that is there already is connected again."""
        async with self.callers() as (accounts, sandbox):
            flow = Demo(accounts, sandbox, f"{self.local.public_url}/your-app")
            for username in usernames:
                account = await flow.connect(username, self.account_ids.get(username))
                self.account_ids[username] = account.id

    async def restart(self) -> float:
        """Starts the server; the seconds until a caller has an answer."""
        began = time.monotonic()
        await asyncio.to_thread(self.local.start_server)
        await self._until_listening()
        async with AsyncAccounts(self.local.target, self.local.api_key) as accounts:
            await accounts.get(next(iter(self.account_ids.values())))
        return time.monotonic() - began

    async def until_settled(self) -> dict[str, StoredGrant]:
        """The grants, when nothing of them is under way any more."""
        deadline = time.monotonic() + PATIENCE
        while True:
            grants = self.remains.grants()
            if all(grant.settled for grant in grants.values()) and not self.remains.journal():
                return grants
            assert time.monotonic() < deadline, grants
            await asyncio.sleep(0.05)

    async def until_logged(self, text: str, count: int) -> None:
        """Returns when the processes have logged `text` so often since `log_from_here`."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.log_file.read_bytes()[self._logged :].count(text.encode())) < count:
            assert time.monotonic() < deadline, f"logged {found} of {count} times: {text}"
            await asyncio.sleep(0.02)

    def log_from_here(self) -> None:
        self._logged = self.log_file.stat().st_size

    @property
    def log_file(self) -> Path:
        return self.local.folder.parent / "processes.log"

    async def accounts(self) -> dict[str, Account]:
        """By the user's name, as GetAccount shows them."""
        async with AsyncAccounts(self.local.target, self.local.api_key) as accounts:
            return {name: await accounts.get(account_id) for name, account_id in self.account_ids.items()}

    async def ledger(self) -> dict[str, dict[str, Any]]:
        """The newest grant of each user, as the platform has it."""
        async with self.sandbox() as sandbox:
            return {grant["username"]: grant for grant in await sandbox.ledger()}

    async def _until_listening(self) -> None:
        """The callback's port opens first, and a channel that is refused once waits a second."""
        host, _, port = self.local.target.rpartition(":")
        deadline = time.monotonic() + PATIENCE
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return
            assert time.monotonic() < deadline, "the server does not listen"
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def on_sqlite(folder: Path) -> Iterator[Victim]:
    with deployed(folder) as local:
        database = local.folder / "accounts.db"
        yield victim(local, SqliteFile(database), database.with_name("accounts.db.journal"))


@contextlib.contextmanager
def on_postgres(folder: Path, url: str) -> Iterator[Victim]:
    """`url` names an empty database."""
    with CommitProxy(url) as proxy, deployed(folder, proxy.url) as local:
        yield victim(local, PostgresServer(url), local.folder / "journal", proxy)


def victim(local: Local, database: Database, journal_folder: Path, proxy: CommitProxy | None = None) -> Victim:
    return Victim(local, Remains(database, local.folder / "keys.json", journal_folder), proxy)


@contextlib.contextmanager
def deployed(folder: Path, database_url: str | None = None) -> Iterator[Local]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "processes.log").open("ab") as log:
        local = Local(
            folder / "deployment",
            ports={part: free_port() for part in ("grpc", "http", "sandbox")},
            min_interval="1s",
            identity_interval="1h",
            access_token_seconds=ACCESS_TOKEN_SECONDS,
            log=log,
        )
        local.write_files()
        if database_url is not None:
            text = local.config_file.read_text().replace("sqlite:///accounts.db", database_url)
            local.config_file.write_text(text.replace("[refresh]", '[refresh]\njournal = "journal"'))
        with local:
            yield local
