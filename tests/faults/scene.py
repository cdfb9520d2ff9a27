"""The scene of one kill: a server that rests, users whose grants come in flight, and how to stop it there."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.control import Control
from tests.faults.commit_proxy import CommitProxy
from tests.faults.tracing import Trace, traced
from tests.faults.victim import PATIENCE, Victim


@dataclass
class Scene:
    """A server that runs and rests, and the users whose grants are to be in flight when it ends."""

    victim: Victim
    sandbox: Control
    users: Sequence[str]
    trace: Trace | None = None
    answers_read: int = 0
    hits: int = 0
    """Commits that the proxy met."""

    @property
    def proxy(self) -> CommitProxy:
        assert self.victim.proxy is not None, "only with PostgreSQL"
        return self.victim.proxy

    def make_due(self) -> None:
        self.victim.remains.make_due([self.victim.account_ids[user] for user in self.users])

    async def hold(self, fault: str) -> None:
        """Every refresh has reached the platform and is held there, before or after it acted."""
        await self.sandbox.fault("token", fault, times=len(self.users), only="refresh")
        self.make_due()
        await self.sandbox.until_held(len(self.users))

    def inject(self, *rules: str) -> None:
        """From now on; all threads."""
        local = self.victim.local
        self.trace = Trace(local.pid("server"), local.folder.parent / "trace", *rules)

    async def kill(self) -> None:
        await asyncio.to_thread(self.victim.local.kill, "server")

    async def ended(self) -> None:
        """Something in it was the death of the server."""
        code = await asyncio.to_thread(self.victim.local.ended, "server", PATIENCE)
        assert code == -9, f"it ended with {code}, not by SIGKILL"

    def start_and_die(self, rule: str, path: Path) -> None:
        """Starts a server under the rule for `path` and waits for its death."""
        local = self.victim.local
        assert traced(local.server_command(), local.folder.parent / "trace", rule, path) == -9, "the rule was not met"

    async def until_journaled(self) -> None:
        """The journal has an entry for every grant in flight, finished and synced."""
        deadline = time.monotonic() + PATIENCE
        folder = self.victim.remains.journal_folder
        while len([path for path in folder.iterdir() if not path.suffix and path.name[0] != "."]) < len(self.users):
            assert time.monotonic() < deadline, "the journal was not written"
            await asyncio.sleep(0.01)

    async def stop_watching(self) -> None:
        if self.trace is not None:
            await asyncio.to_thread(self.trace.stop)
            self.answers_read = self.trace.answers_read()
            self.trace = None
        if self.victim.proxy is not None:
            self.hits = self.proxy.hits
            self.proxy.disarm()
