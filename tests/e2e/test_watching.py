"""Watching the whole service: over restarts and cut connections nothing is left out and nothing comes twice."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1.account_service_pb2_grpc import AccountServiceStub
from synposter_accounts import (
    Account,
    AccountChangeKind,
    AccountStatus,
    AsyncAccounts,
    CallerNotPermitted,
    Change,
    Listing,
    ServiceUnreachable,
)

from sandbox.control import Control
from sandbox.demo import Demo
from sandbox.local import Local
from server.accounts.model import Identity
from server.app import App
from tests.e2e.conftest import PROFILE, Whole, whole_service
from tests.postgres import fresh_database
from tests.rpc.conftest import refusal_of

PATIENCE = 20.0


class Collected:
    """All changes that a watch tells, in their order."""

    def __init__(self, accounts: AsyncAccounts, profile_id: str = PROFILE) -> None:
        self.changes: list[Change] = []
        self.listings = 0
        self._watch = accounts.watch(profile_id)
        self._task = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        async for news in self._watch:
            if isinstance(news, Change):
                self.changes.append(news)
            elif isinstance(news, Listing):
                self.listings += 1

    async def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert not self._task.done(), self._task.exception()
            assert time.monotonic() < deadline, self.changes
            await asyncio.sleep(0.02)

    @property
    def handles(self) -> list[str]:
        return [change.account.handle for change in self.changes if change.account is not None]

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


def stream(whole: Whole, **request: Any) -> Any:
    # No more than 64 kB are on their way to a client that does not read.
    channel = grpc.aio.insecure_channel(whole.local.target, options=[("grpc.http2.bdp_probe", 0)])
    metadata = (("authorization", f"Bearer {whole.local.api_key}"),)
    return AccountServiceStub(channel).WatchAccounts(pb.WatchAccountsRequest(**request), metadata=metadata)


async def next_of(call: Any) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await call.read()


async def test_a_watcher_is_told_of_an_accounts_whole_life(whole: Whole) -> None:
    watch = Collected(whole.accounts)
    await watch.until(lambda: watch.listings == 1)
    account = await whole.connect("ada")
    await whole.sandbox.rename("ada", "countess")
    whole.clock.offset += whole.app.platforms["twitter"].rules.identity_interval
    await whole.app.refresher.run_once()
    await whole.app.identities.work_off("twitter")
    await watch.until(lambda: watch.handles[-1:] == ["countess"])
    await whole.sandbox.revoke_user("countess")
    await whole.refresh_due()
    await watch.until(lambda: watch.changes[-1].kind is AccountChangeKind.EXPIRED)
    assert watch.changes[-1].status_reason.name == "REFRESH_REJECTED"
    await whole.connect("countess", account_id=account.id)
    await whole.accounts.revoke(account.id)
    await whole.accounts.delete_profile(PROFILE)
    await watch.until(lambda: watch.changes[-1].kind is AccountChangeKind.DELETED)
    kinds = [change.kind.name for change in watch.changes]
    assert kinds == ["CONNECTED", "IDENTITY_CHANGED", "EXPIRED", "RECONNECTED", "REVOKED", "DELETED"]
    assert {change.account_id for change in watch.changes} == {account.id}
    await watch.close()


async def test_a_mirror_is_true_while_accounts_come_and_go(whole: Whole) -> None:
    before = await whole.connect("ada")
    async with whole.accounts.mirror(PROFILE) as mirror:
        assert dict(mirror) == {before.id: before}
        grace = await whole.connect("grace")
        await whole.accounts.revoke(before.id)
        deadline = time.monotonic() + PATIENCE
        while len(mirror) < 2 or mirror[before.id].status is not AccountStatus.REVOKED:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert mirror[grace.id] == grace


async def test_a_leaving_server_ends_a_watch_without_an_error(whole: Whole) -> None:
    call = stream(whole, profile_id=PROFILE)
    await next_of(call)
    began = time.monotonic()
    await whole.app.watching.stop()
    assert await next_of(call) is grpc.aio.EOF
    await whole.app.grpc.stop(timedelta(seconds=30))
    assert time.monotonic() - began < 5, "the watch did not hold it up"


async def not_read(whole: Whole) -> Any:
    """A watch in the middle of a write to a client that does not read."""
    call = stream(whole, profile_id=PROFILE)
    await next_of(call)
    account = await whole.connect("ada")
    # More than is on its way to a client that does not read.
    for number in range(100):
        identity = renamed(account, f"{number:0>1000}")
        await whole.app.store.update_identity(grant_of(whole, account), identity, due_time=await whole.app.store.now())
    return call


async def end_of(call: Any) -> SimpleNamespace:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await next_of(call) is not grpc.aio.EOF:
            pass
    return refusal_of(caught.value)


async def nobody_watches(whole: Whole) -> None:
    deadline = time.monotonic() + PATIENCE
    while whole.app.watching.count:
        await whole.app.watching.look_after()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_watch_that_is_not_read_is_cut_off_when_the_server_leaves(whole: Whole) -> None:
    call = await not_read(whole)
    await whole.app.watching.stop()
    assert (await end_of(call)).code is grpc.StatusCode.UNAVAILABLE
    assert whole.app.watching.count == 0


async def test_a_watch_that_is_not_read_for_a_minute_is_cut_off(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    call = await not_read(whole)
    monkeypatch.setattr("server.accounts.watching.SLOW_SECONDS", 0.2)
    await nobody_watches(whole)
    refusal = await end_of(call)
    assert (refusal.code, refusal.facts) == (grpc.StatusCode.RESOURCE_EXHAUSTED, {"limit": "watch_backlog"})


async def test_a_watch_that_is_not_read_is_cut_off_within_five_seconds_when_its_caller_is_blocked(whole: Whole) -> None:
    call = await not_read(whole)
    await whole.app.store.set_block("local", reason="stolen", operator="ada")
    await whole.app.blocks.follow()
    began = time.monotonic()
    await nobody_watches(whole)
    assert time.monotonic() - began < 5
    assert (await end_of(call)).code is grpc.StatusCode.PERMISSION_DENIED


def renamed(account: Account, handle: str) -> Identity:
    return Identity(account.platform_user_id, handle)


def grant_of(whole: Whole, account: Account) -> str:
    [row] = whole.app.engine.database.execute_sql(f"SELECT grant_id FROM accounts WHERE id = '{account.id}'").fetchall()
    return str(row[0])


async def test_the_watches_of_a_blocked_caller_end_within_five_seconds(deployment: Local) -> None:
    async with AsyncAccounts(deployment.target, deployment.api_key) as accounts:
        watch = Collected(accounts)
        await watch.until(lambda: watch.listings == 1)
        await asyncio.to_thread(deployment.command, "callers", "block", "local", "--reason", "stolen")
        began = time.monotonic()
        await asyncio.wait([watch._task], timeout=5)
        assert time.monotonic() - began < 5
        with pytest.raises(CallerNotPermitted, match="blocked"):
            await watch._task


async def answering(accounts: AsyncAccounts) -> None:
    """Returns once the connection is there again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            async for _ in accounts.list(PROFILE):
                pass
            return
        except ServiceUnreachable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_over_a_restart_nothing_is_left_out_and_nothing_comes_twice(
    deployment: Local, how: signal.Signals
) -> None:
    async with (
        AsyncAccounts(deployment.target, deployment.api_key) as accounts,
        Control(str(deployment.sandbox_url)) as sandbox,
    ):
        await sandbox.settings(access_token_seconds=7200)
        demo = Demo(accounts, sandbox, f"{deployment.public_url}/your-app")
        watch = Collected(accounts, "acme/ada-and-grace")
        await watch.until(lambda: watch.listings == 1)
        ada = await demo.connect("ada")
        await asyncio.to_thread(deployment.kill, "server", how)
        await asyncio.to_thread(deployment.start_server)
        await answering(accounts)
        grace = await demo.connect("grace")
        await accounts.revoke(ada.id)
        await watch.until(lambda: len(watch.changes) >= 3)
        told = [(change.kind.name, change.account_id) for change in watch.changes]
        assert told == [("CONNECTED", ada.id), ("CONNECTED", grace.id), ("REVOKED", ada.id)]
        assert watch.listings == 1, "it resumed"
        await watch.close()


@asynccontextmanager
async def cuttable(target: str) -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """A way to the target whose connections can be cut: its address, and what cuts them all and says how many."""
    host, _, port = target.rpartition(":")
    writers: list[asyncio.StreamWriter] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        writers.extend((writer, back))
        await asyncio.gather(pipe(reader, back), pipe(there, writer), return_exceptions=True)

    def cut() -> int:
        count = len(writers)
        for writer in writers:
            writer.transport.abort()
        writers.clear()
        return count

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", cut
    server.close()
    cut()


async def test_over_cut_connections_nothing_is_left_out_and_nothing_comes_twice(whole: Whole) -> None:
    account = await whole.connect("ada")
    grant = grant_of(whole, account)
    async with cuttable(whole.local.target) as (address, cut), AsyncAccounts(address, whole.local.api_key) as accounts:
        watch = Collected(accounts)
        await watch.until(lambda: watch.listings == 1)
        sent = []
        for number in range(60):
            sent.append(f"handle-{number}")
            identity = renamed(account, sent[-1])
            await whole.app.store.update_identity(grant, identity, due_time=await whole.app.store.now())
            if number % 20 == 10:
                assert cut()
            await asyncio.sleep(0.01)
        await watch.until(lambda: len(watch.changes) >= 60)
        assert len(watch.changes) == 60 and watch.handles[-1] == sent[-1]
        times = [change.change_time for change in watch.changes]
        assert times == sorted(times) and len(set(times)) == 60  # type: ignore[type-var]
        await watch.close()


@pytest.mark.alone
async def test_another_server_on_the_same_database_tells_within_a_second(postgres: str, tmp_path: Path) -> None:
    async with whole_service(tmp_path / "deployment", fresh_database(postgres)) as whole:
        listens = {"grpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
        server = whole.app.settings.server.model_copy(update=listens)
        other = App(whole.app.settings.model_copy(update={"server": server}), run_jobs=False)
        await other.start()
        async with AsyncAccounts(f"127.0.0.1:{other.grpc_port}", whole.local.api_key) as accounts:
            watch = Collected(accounts)
            await watch.until(lambda: watch.listings == 1)
            await whole.connect("ada")
            began = time.monotonic()
            await watch.until(lambda: len(watch.changes) == 1)
            assert time.monotonic() - began < 1
            await watch.close()
        await other.stop()
