"""Operators beside a running service: pausing, explaining, refreshing, reading again what nobody could read."""

import asyncio
import json
import subprocess
import time
from pathlib import Path

import pytest
from synposter_accounts import PlatformPaused

from sandbox.control import Control
from sandbox.local import Local
from server.accounts.errors import StoreUnavailable
from server.accounts.events import EventFilter
from server.commands import operate
from server.commands.operate import operator
from tests.e2e.conftest import PROFILE, Whole, whole_service
from tests.e2e.test_processes import connected, grpcurl, until

OPERATIONS = "synposter.accounts.v1.OperationsService"
ACCOUNTS = "synposter.accounts.v1.AccountService"


def command(local: Local, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(local.server_command(*words), capture_output=True, text=True, check=False, timeout=30)


async def test_an_operator_pauses_and_resumes_a_platform_of_a_running_server(deployment: Local) -> None:
    account = await connected(deployment)
    done = command(deployment, "platforms", "pause", "twitter", "--reason", "an incident at X")
    assert done.returncode == 0, done.stderr
    listed = command(deployment, "platforms", "list").stdout
    assert f"paused by {operator()}" in listed and "an incident at X" in listed
    assert "not registered in this configuration" in listed
    async with Control(str(deployment.sandbox_url)) as sandbox:
        await asyncio.sleep(2.5)
        before = len(await sandbox.requests("token"))
        told = grpcurl(
            deployment, "-d", json.dumps({"id": account.id}), deployment.target, f"{OPERATIONS}/ExplainAccount"
        )
        story = json.loads(told.stdout)
        assert story["platform_hold"] == "an incident at X" and story["events"][0]["kind"] == "connected"
        await asyncio.sleep(3)
        assert len(await sandbox.requests("token")) == before
    assert command(deployment, "platforms", "resume", "twitter").returncode == 0
    began = time.time()
    await until(
        deployment,
        account.id,
        lambda each: each.last_refresh_time is not None and each.last_refresh_time.timestamp() > began,
    )


async def test_an_unknown_platform_is_not_paused(deployment: Local) -> None:
    done = command(deployment, "platforms", "pause", "myspace", "--reason", "why not")
    assert done.returncode == 2
    assert "registered: twitter" in done.stderr and "Traceback" not in done.stderr


async def test_grpcurl_refreshes_an_account(whole: Whole) -> None:
    account = await whole.connect()
    whole.clock.offset += whole.app.platforms["twitter"].rules.default_access_token_lifetime * 0.5
    done = await asyncio.to_thread(
        grpcurl,
        whole.local,
        "-d",
        json.dumps({"id": account.id, "min_remaining_lifetime": "3000s"}),
        whole.local.target,
        f"{ACCOUNTS}/RefreshAccount",
    )
    assert "refreshed" not in json.loads(done.stdout), "an hour is left"
    assert (await whole.accounts.refresh(account.id)).refreshed
    [grant] = await whole.sandbox.ledger()
    assert (grant["refreshes"], grant["replays"]) == (1, 0)


async def test_a_pause_is_told_to_callers(whole: Whole) -> None:
    await whole.connect()
    await whole.app.store.set_pause("twitter", reason="an incident", operator="ada")
    await whole.app.pauses.follow()
    with pytest.raises(PlatformPaused):
        await whole.accounts.begin_connect(PROFILE, "twitter", return_url=whole.return_url)


async def test_what_nobody_could_read_is_read_again_by_a_version_that_can(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await whole.connect()
    with monkeypatch.context() as older:
        older.setattr("server.platforms.fields.is_token", lambda value: False)
        await whole.refresh_due()
        [line] = (await operate.unread(whole.app.settings, read_again=False))[1:]
        assert "unknown" in line and "cannot read it" in line
    [line] = (await operate.unread(whole.app.settings, read_again=False))[1:]
    assert "can read it" in line
    [line] = (await operate.unread(whole.app.settings, read_again=True))[1:]
    assert "stored" in line
    assert await operate.unread(whole.app.settings, read_again=True) == ["there are no unread answers"]
    audited = await whole.app.store.list_events(EventFilter(kind="replies_read_again"), after="", size=10)
    [told] = audited.events
    assert (told.caller, told.facts) == (f"operator {operator()}", {"count": 1})
    whole.clock.offset += whole.app.settings.refresh.min_interval
    await whole.app.refresher.run_once()
    [grant] = await whole.sandbox.ledger()
    assert (grant["alive"], grant["replays"], grant["refreshes"]) == (True, 0, 2)
    assert (await whole.accounts.get(account.id)).last_refresh_time is not None


async def test_a_server_that_cannot_write_says_so_and_goes_on_by_itself(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await whole.connect()
    assert await whole.healthy()
    work = whole.app.engine.write

    async def full(_: object) -> None:
        raise StoreUnavailable("database or disk is full")

    with monkeypatch.context() as disk:
        disk.setattr(whole.app.engine, "write", full)
        sent = len(await whole.sandbox.requests("token"))
        whole.clock.offset += whole.app.platforms["twitter"].rules.default_access_token_lifetime * 0.86
        with pytest.raises(Exception, match="full"):
            await whole.app.refresher.run_once()
        assert len(await whole.sandbox.requests("token")) == sent
        assert not await whole.healthy()
        assert (await whole.accounts.get(account.id)).id == account.id, "reads go on"
    assert whole.app.engine.write == work
    assert await whole.healthy()
    assert await whole.app.refresher.run_once() == 1


async def test_a_server_that_nobody_asks_for_anything_notices_that_it_cannot_write(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_: object) -> None:
        raise StoreUnavailable("database or disk is full")

    with monkeypatch.context() as disk:
        disk.setattr(whole.app.engine, "write", full)
        await whole.app.served.keep()
        assert not await whole.healthy()
    await whole.app.served.keep()
    assert await whole.healthy()


async def test_without_room_for_the_journal_nothing_is_claimed(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    await whole.connect()
    whole.app.journal._reserved = False

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.posix_fallocate", full)
        await whole.refresh_due()
        assert not await whole.healthy()
        [grant] = await whole.sandbox.ledger()
        assert grant["refreshes"] == 0
    await whole.app.refresher.run_once()
    assert await whole.healthy()
    [grant] = await whole.sandbox.ledger()
    assert grant["refreshes"] == 1


async def test_a_stop_ends_also_where_the_database_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.app.FAREWELL_SECONDS", 0.1)
    async with asyncio.timeout(60), whole_service(tmp_path / "deployment") as whole:
        monkeypatch.setattr(whole.app.store, "serve", lambda _: asyncio.Event().wait())
