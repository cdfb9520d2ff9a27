"""A fleet: one or several real servers on one database beside one sandbox, with as many grants due as a test wants."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
from cysqlite import connect
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from sandbox.control import Control
from sandbox.local import Local
from sandbox.ports import free_port
from server.accounts.gate import PATIENCE_SECONDS
from server.accounts.model import Status
from server.parts import load_settings, new_id, open_engine
from server.storage.keyring import KeyRing
from server.storage.store import Store
from server.storage.token_sets import grant_context, unpack
from server.storage.vault import Vault
from tests.faults.seeded import seed
from tests.moulds import furnish

PATIENCE = 30.0
FEWEST_AT_ONCE = 32
"""A server has at least so many refreshes under way to one platform when enough are due."""
LONG = timedelta(hours=1)


@dataclass
class Fleet:
    """The servers, none of them started yet, and the sandbox, which runs."""

    servers: list[Local]
    sandbox: Control
    logs: list[Path]
    stopped: set[int] = field(default_factory=set)
    """Pids of processes that were sent SIGSTOP."""

    def start(self, *numbers: int) -> None:
        for number in numbers or range(len(self.servers)):
            self.servers[number].start_server()

    def pause(self, number: int) -> None:
        """SIGSTOP; returns when the whole process stands still."""
        pid = self.servers[number].pid("server")
        os.kill(pid, signal.SIGSTOP)
        self.stopped.add(pid)
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "Tt":
            time.sleep(0.005)

    def go_on(self, number: int) -> None:
        pid = self.servers[number].pid("server")
        os.kill(pid, signal.SIGCONT)
        self.stopped.discard(pid)

    async def seed(self, count: int, *, due_in: timedelta = timedelta(), life: timedelta = LONG) -> None:
        """So many accounts, as connects would have left them: their grants in the store and at the platform alike.

        With SQLite only while no server holds the file.
        """
        engine = open_engine(load_settings(self.servers[0].config_file))
        await seed(self.sandbox, Store(engine, self._vault(), new_id), count, due_in=due_in, life=life)
        engine.close()

    def make_due(self, in_seconds: float = 0.0, only: str = "ready") -> None:
        """Moves the due times of grants in one state to the same instant."""
        due_time = round((time.time() + in_seconds) * 1_000_000)
        self.sql(f"UPDATE grants SET due_time = {due_time} WHERE state = '{only}'")

    @property
    def database(self) -> Path:
        """The SQLite file."""
        path = load_settings(self.servers[0].config_file).database.path
        assert path is not None
        return path

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """What a statement says on a connection of its own, beside the servers'."""
        settings = load_settings(self.servers[0].config_file)
        if settings.database.path is None:
            with psycopg.connect(settings.database.url, autocommit=True) as connection:
                cursor = connection.execute(statement.encode())
                return [] if cursor.description is None else cursor.fetchall()
        with contextlib.closing(connect(str(settings.database.path))) as connection:
            return list(connection.execute(statement).fetchall())

    def refreshed(self) -> int:
        return int(self.sql("SELECT count(*) FROM grants WHERE generation > 1")[0][0])

    def states(self) -> Counter[str]:
        return Counter(dict(self.sql("SELECT state, count(*) FROM grants GROUP BY state")))

    def statuses(self) -> Counter[Status]:
        found = self.sql("SELECT status, count(*) FROM accounts GROUP BY status")
        return Counter({Status(status): count for status, count in found})

    def held_tokens(self) -> set[str]:
        """The refresh tokens in the store's grants, opened."""
        vault, held = self._vault(), set()
        rows = self.sql("SELECT id, profile_id, platform, generation, token_set FROM grants")
        for grant_id, profile_id, platform, generation, sealed in rows:
            bound = grant_context("token_set", grant_id, profile_id, platform, generation)
            refresh_token = unpack(vault.open(bytes(sealed), bound)).refresh_token
            assert refresh_token is not None
            held.add(refresh_token.reveal())
        return held

    async def live_tokens(self) -> set[str]:
        """The refresh tokens that work at the platform."""
        return {grant["refresh_token"] for grant in await self.sandbox.ledger() if grant["alive"]}

    async def replays(self) -> int:
        return sum(grant["replays"] for grant in await self.sandbox.ledger())

    async def sends(self) -> Counter[str]:
        """How often each refresh token came to the token endpoint."""
        return Counter(each["sent"] for each in await self.sandbox.requests("token"))

    async def sent(self) -> int:
        """How many requests have come to the token endpoint."""
        return len(await self.sandbox.requests("token"))

    async def until_sent(self, count: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while await self.sent() < count:
            assert time.monotonic() < deadline, f"not {count} requests within {PATIENCE:.0f} s"
            await asyncio.sleep(0.02)

    async def until_all_hang(self) -> None:
        """Returns when the platform holds so many answers that nothing more is sent."""
        await self.until_sent(FEWEST_AT_ONCE)
        before = -1
        while (now := await self.sent()) != before:
            before = now
            await asyncio.sleep(PATIENCE_SECONDS + 0.5)  # what is free after that time is claimed as it is

    def lines(self, event: str, number: int = 0) -> list[dict[str, Any]]:
        """The log lines of one server with these words."""
        text = self.logs[number].read_text() if self.logs[number].exists() else ""
        # The last line may be half written.
        found = [json.loads(line) for line in text.splitlines(keepends=True) if line.startswith("{") and "\n" in line]
        return [line for line in found if line["event"] == event]

    async def serving(self, number: int = 0) -> bool:
        """What grpc.health.v1 says."""
        async with grpc.aio.insecure_channel(self.servers[number].target) as channel:
            response = await HealthStub(channel).Check(HealthCheckRequest(), timeout=5)
        return bool(response.status == HealthCheckResponse.SERVING)

    def _vault(self) -> Vault:
        return Vault(KeyRing.load(self.servers[0].folder / "keys.json"))


@contextlib.asynccontextmanager
async def fleet(
    folder: Path,
    *,
    servers: int = 1,
    database_url: str | None = None,
    lease: str = "60s",
    access_token_seconds: int = 7200,
) -> AsyncIterator[Fleet]:
    """The files of so many servers, a migrated database and a running sandbox.

    `database_url` names an empty PostgreSQL database or a SQLite file; without it, it is one beside the first server's
    configuration.
    """
    sandbox_port = free_port()
    logs = [folder / f"server-{number}.log" for number in range(servers)]
    with contextlib.ExitStack() as files:
        locals_: list[Local] = []
        for number, log in enumerate(logs):
            ports = {"grpc": free_port(), "http": free_port(), "sandbox": sandbox_port}
            local = Local(folder / f"server-{number}", ports, access_token_seconds=access_token_seconds)
            local.log = files.enter_context(log.open("ab"))
            local.write_files()
            configure(local, database_url, lease)
            if number:
                for name in ("keys.json", "client-secret"):
                    shutil.copy2(locals_[0].folder / name, local.folder / name)
            else:
                furnish(local.config_file)
            locals_.append(local)
        whole = Fleet(locals_, Control(str(locals_[0].sandbox_url)), logs)
        try:
            await asyncio.to_thread(locals_[0].start_sandbox)
            async with whole.sandbox:
                yield whole
        finally:
            for pid in whole.stopped:
                os.kill(pid, signal.SIGCONT)
            for local in locals_:
                for name in ("server", "sandbox"):
                    with contextlib.suppress(KeyError):
                        local.kill(name)


def configure(local: Local, database_url: str | None, lease: str) -> None:
    text = local.config_file.read_text()
    refresh = f'[refresh]\nlease = "{lease}"'
    if database_url is not None:
        text = text.replace("sqlite:///accounts.db", database_url)
        refresh += '\njournal = "journal"' if database_url.startswith("postgresql") else ""
    text = text.replace("[refresh]", refresh).replace('format = "console"', 'format = "json"')
    # Handles are not what these tests are about: nothing else may come to the platform.
    local.config_file.write_text(text.replace('identity_interval = "1m"', 'identity_interval = "30d"'))


async def until(holds: Callable[[], Any], patience: float = PATIENCE, every: float = 0.05) -> None:
    """Returns when it holds; fails when that takes too long."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain"
        await asyncio.sleep(every)
