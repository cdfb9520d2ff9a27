"""The whole story at DEBUG, with real processes: no secret is in anything that anybody can see (rows C1 to C6)."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import psycopg
import pytest
from synposter.accounts.v1 import operations_service_pb2 as ops
from synposter.accounts.v1.operations_service_pb2_grpc import OperationsServiceStub
from synposter_accounts import Account, AccountsError, AccountStatus, AsyncAccounts

from sandbox.control import Control
from sandbox.local import Local
from sandbox.ports import free_port
from tests.faults.processes import until
from tests.faults.test_database_faults import locked
from tests.moulds import furnish
from tests.postgres import binaries, cluster, fresh_database
from tests.rpc.conftest import bearer
from tests.security.witness import MARKED, Recorder, Witness

pytestmark = pytest.mark.exec

PROFILE = "acme/ada"
STRANGERS_KEY = "a-strangers-key-canary-0123456789"


@dataclass
class Story:
    """A deployment, and who plays it: caller, browser, user, operator, platform, witness."""

    local: Local
    accounts: AsyncAccounts
    stranger: AsyncAccounts
    operations: Any
    sandbox: Control
    witness: Witness

    async def consent(self, username: str, **consent: str) -> str:
        """Begins a connect and consents; the callback's URL."""
        begun = await self.accounts.begin_connect(PROFILE, "twitter", return_url=f"{self.local.public_url}/your-app")
        self.witness.begun(begun.authorization_url)
        return await self.sandbox.consent(begun.authorization_url, username, **consent)

    async def connect(self, username: str) -> Account:
        back = await self.witness.browse(await self.consent(username))
        [account] = await self.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
        return account

    async def until_refreshed(self, account: Account) -> None:
        async with asyncio.timeout(30):
            while (await self.accounts.get(account.id)).last_refresh_time is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def faults(self) -> int:
        return sum(1 for request in await self.sandbox.requests("token") if request["fault"])

    async def operator_looks(self, account: Account) -> None:
        for method, request in (
            ("ExplainAccount", ops.ExplainAccountRequest(id=account.id)),
            ("ListAuditEvents", ops.ListAuditEventsRequest(page_size=500)),
        ):
            await getattr(self.operations, method)(request, metadata=bearer(self.local.api_key), timeout=10)

    async def note_platform(self) -> None:
        self.witness.note_platform(await self.sandbox.requests("token"))
        self.witness.add_keys()


def record(monkeypatch: pytest.MonkeyPatch, witness: Witness) -> None:
    """Every channel that is opened from now on has the witness on the line."""
    plain = grpc.aio.insecure_channel

    def recorded(target: str, options: Any = None) -> grpc.aio.Channel:
        return plain(target, options=options, interceptors=[Recorder(witness)])

    monkeypatch.setattr(grpc.aio, "insecure_channel", recorded)


@contextlib.asynccontextmanager
async def story(folder: Path, monkeypatch: pytest.MonkeyPatch, database_url: str | None) -> AsyncIterator[Story]:
    ports = {part: free_port() for part in ("grpc", "http", "sandbox", "metrics")}
    temporary = folder / "temporary"
    temporary.mkdir(parents=True)
    for name, value in {
        "TMPDIR": str(temporary), "GRPC_TRACE": "all", "GRPC_VERBOSITY": "DEBUG", "PYTHONASYNCIODEBUG": "1",
        "PYTHONFAULTHANDLER": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    log = folder / "server.log"
    with log.open("wb") as output, (folder / "sandbox.log").open("wb") as sandbox_output:
        local = Local(folder / "deployment", ports, "1s", "1s", level="debug", access_token_seconds=4)
        local.write_files()
        text = local.config_file.read_text().replace(
            "[log]", f'metrics_listen = "127.0.0.1:{ports["metrics"]}"\n\n[log]'
        )
        if database_url is not None:
            text = text.replace("sqlite:///accounts.db", database_url)
        local.config_file.write_text(text.replace("[refresh]", '[refresh]\njournal = "journal"'))
        furnish(local.config_file)
        witness = Witness(local, log, temporary, f"http://127.0.0.1:{ports['metrics']}/metrics")
        witness.canaries.add("stranger's key", STRANGERS_KEY)
        record(monkeypatch, witness)
        local.log = sandbox_output
        local.start_sandbox()
        local.log = output
        local.start_server()
        try:
            async with (
                AsyncAccounts(local.target, local.api_key) as accounts,
                AsyncAccounts(local.target, STRANGERS_KEY) as stranger,
                grpc.aio.insecure_channel(local.target) as channel,
                Control(str(local.sandbox_url)) as sandbox,
            ):
                operations = OperationsServiceStub(channel)  # type: ignore[no-untyped-call]
                yield Story(local, accounts, stranger, operations, sandbox, witness)
        finally:
            local.stop()


async def connects_fail(told: Story) -> None:
    """Each way in which a connect ends without an account; the platform says again what it was sent."""
    for at, status, only in (("token", 400, "code"), ("token", 503, "code"), ("identity", 403, None)):
        back = await told.witness.browse(await told.consent("grace"))
        await told.sandbox.fault(at, "echo", status=status, only=only)
        with pytest.raises(AccountsError):
            await told.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    for profile_id, letters in (("acme/another", slice(None)), (PROFILE, slice(None, None, -1))):
        back = await told.witness.browse(await told.consent("grace"))
        with pytest.raises(AccountsError):
            await told.accounts.complete_connect(profile_id, completion_code=back["completion_code"][letters])
    callback = await told.consent("grace")
    for url in (callback.replace("twitter", "linkedin"), callback, callback, f"{callback}&state=twice", callback[:-9]):
        await told.witness.browse(url)
    await told.witness.browse(await told.consent("grace", decision="deny"))
    await told.witness.browse(callback, "POST")
    for call in (told.stranger.get(told.local.api_key), told.accounts.get(f"Bearer {told.local.api_key}")):
        with pytest.raises(AccountsError):
            await call


async def refreshes_fail(told: Story, account: Account) -> None:
    """Answers that nobody can read, and errors that repeat what was sent, to whichever refresh comes next."""
    for fault in ({"fault": "echo", "status": 503}, {"fault": "echo", "status": 400}, {"fault": "html_after"}):
        await told.connect(f"user-{fault['fault']}-{fault.get('status')}")
        before = await told.faults()
        await told.sandbox.fault("token", only="refresh", **fault)
        async with asyncio.timeout(30):
            while await told.faults() == before:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    await told.operator_looks(account)
    with pytest.raises(AccountsError):
        await told.accounts.refresh("01930000-0000-7000-8000-000000000000")


async def the_journal_is_used(told: Story) -> None:
    """SQLite is locked by somebody else while the answer to a refresh is on its way."""
    journal = told.local.folder / "journal"

    before = set(journal.iterdir())
    await told.sandbox.fault("token", "hold_after", only="refresh", times=-1)
    await told.sandbox.until_held()
    with locked(told.local.folder / "accounts.db"):
        await told.sandbox.clear_faults()
        await until(lambda: set(journal.iterdir()) - before)
        told.witness.look_around("with an entry in the journal")


async def keys_are_rotated(told: Story) -> None:
    before = json.loads((told.local.folder / "keys.json").read_text())["keys"]
    await told.witness.command("keys", "rotate")
    told.witness.add_keys()
    after = json.loads((told.local.folder / "keys.json").read_text())["keys"]
    [new] = {key["id"] for key in after} - {key["id"] for key in before}
    await told.witness.command("keys", "activate", new)
    for words in (("rewrap",), ("status",)):
        await told.witness.command("keys", *words)


async def whole_story(told: Story) -> None:
    await told.witness.browse(f"{told.local.public_url}/healthz")
    ada = await told.connect("ada")
    told.witness.look_around("after connecting")
    await told.until_refreshed(ada)
    await told.accounts.refresh(ada.id)
    assert [account.id async for account in told.accounts.list(PROFILE)]
    await connects_fail(told)
    await refreshes_fail(told, ada)
    await keys_are_rotated(told)
    byron = await told.connect("byron")
    await told.sandbox.revoke_user("byron")
    async with asyncio.timeout(30):
        while (await told.accounts.get(byron.id)).status is not AccountStatus.EXPIRED:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await told.note_platform()
    told.witness.look_around("after refreshing")
    await told.sandbox.fault("revoke", "echo", status=400)
    await told.accounts.revoke(ada.id)
    await told.operator_looks(ada)
    await told.connect("lovelace")
    await told.sandbox.fault("revoke", "echo", status=503)
    await told.accounts.delete_profile(PROFILE)
    for words in (("config", "check"), ("callers", "list"), ("callers", "check", "local"), ("grants", "unread"),
                  ("platforms", "list"), ("audit", "verify"), ("callers", "add", "local")):  # fmt: skip
        await told.witness.command(*words)
    told.witness.look_around("at the end")


async def nothing_is_found(told: Story) -> None:
    """And what was searched for, and where, is what it should have been."""
    await told.note_platform()
    witness = told.witness
    assert b"refreshed" in witness.read_log()
    kinds = {*MARKED.values(), "verifier", "state", "completion code", "key", "API key", "client secret"}
    assert not [kind for kind in kinds if not witness.canaries.count(kind)]
    assert witness.canaries.count("refresh token") >= 8
    assert {name for name, _, _ in witness.outputs} >= {
        "log", "page", "redirect", "reply of BeginConnect", "reply of CompleteConnect", "reply of ExplainAccount",
        "reply of Revoke", "reply of DeleteProfile", "/proc/PID/environ at the end", "metrics at the end",
    }  # fmt: skip
    assert witness.hits() == set()


def a_planted_one_is_found(told: Story) -> None:
    """In each kind of output, an access token that is put there for the purpose."""
    token = told.witness.canaries.some("access token")
    for output, content, allowed in told.witness.outputs:
        middle = len(content) // 2
        planted = content[middle - 1000 : middle] + token + content[middle:][:1000]
        assert told.witness.canaries.find(output, planted, allowed), output


async def test_the_whole_story_leaves_no_secret_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with story(tmp_path / "story", monkeypatch, None) as told:
        await told.connect("hopper")
        await the_journal_is_used(told)
        await whole_story(told)
        await nothing_is_found(told)
        a_planted_one_is_found(told)
    for path in filter(Path.is_file, (tmp_path / "story" / "deployment").rglob("accounts.db*")):
        told.witness.see(f"{path.name} after the stop", path.read_bytes())
    assert told.witness.hits() == set()


@pytest.mark.long
async def test_the_whole_story_on_postgresql_leaves_no_secret_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: str
) -> None:
    with cluster() as url:
        database = fresh_database(url)
        async with story(tmp_path / "story", monkeypatch, database) as told:
            await whole_story(told)
            await nothing_is_found(told)
        dump = subprocess.run([binaries() / "pg_dump", "-d", database], capture_output=True, check=True, timeout=60)
        assert b"grants" in dump.stdout
        told.witness.outputs = [("dump", dump.stdout, []), *files_of_postgresql(database)]
        assert {"dump", "base", "pg_wal"} <= {name.partition("/")[0] for name, _, _ in told.witness.outputs}
        assert told.witness.hits() == set()


def files_of_postgresql(database: str) -> list[tuple[str, bytes, list[str]]]:
    """The tables of a database, free space of their pages included, and the log of the cluster, as they are on disk."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        found = connection.execute("SELECT setting, oid FROM pg_settings, pg_database WHERE name = 'data_directory'"
                                   " AND datname = current_database()")  # fmt: skip
        [[folder, oid]] = found.fetchall()
    data = Path(folder)
    paths = [*(data / "base" / str(oid)).rglob("*"), *(data / "pg_wal").rglob("*")]
    return [(str(path.relative_to(data)), path.read_bytes(), []) for path in paths if path.is_file()]
