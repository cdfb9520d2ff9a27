"""The real processes, as operators run them."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from synposter_accounts import Account, AccountsError, AccountStatus, AsyncAccounts

from sandbox.control import Control
from sandbox.demo import Demo
from sandbox.local import Local
from sandbox.run import hints

pytestmark = pytest.mark.exec

GRPCURL = str(Path(sys.executable).parent / "grpcurl")
PATIENCE = 20.0


async def connected(local: Local, username: str = "ada") -> Account:
    async with AsyncAccounts(local.target, local.api_key) as accounts, Control(str(local.sandbox_url)) as sandbox:
        return await Demo(accounts, sandbox, f"{local.public_url}/your-app").connect(username)


async def until(local: Local, account_id: str, holds: Callable[[Account], bool]) -> Account:
    async with AsyncAccounts(local.target, local.api_key) as accounts:
        deadline = time.monotonic() + PATIENCE
        while True:
            account = await accounts.get(account_id)
            if holds(account):
                return account
            assert time.monotonic() < deadline, account
            await asyncio.sleep(0.05)


def grpcurl(local: Local, *words: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    header = ["-H", f"authorization: Bearer {key or local.api_key}"]
    return subprocess.run(
        [GRPCURL, "-plaintext", *header, *words], capture_output=True, text=True, check=False, timeout=30
    )


async def test_the_scheduler_keeps_an_account_fresh_by_itself(deployment: Local) -> None:
    account = await connected(deployment)
    first = await until(deployment, account.id, lambda each: each.last_refresh_time is not None)
    second = await until(deployment, account.id, lambda each: each.last_refresh_time != first.last_refresh_time)
    assert second.status is AccountStatus.ACTIVE


async def test_sigterm_ends_it_with_0_and_a_restart_goes_on(deployment: Local) -> None:
    account = await connected(deployment)
    assert deployment.kill("server", signal.SIGTERM) == 0
    deployment.start_server()
    await until(deployment, account.id, lambda each: each.last_refresh_time is not None)


async def test_sigterm_during_a_refresh_stores_its_answer_first(deployment: Local) -> None:
    account = await connected(deployment)
    async with Control(str(deployment.sandbox_url)) as sandbox:
        await sandbox.fault("token", "hold_after", only="refresh")
        await sandbox.until_held()
        stopping = asyncio.create_task(asyncio.to_thread(deployment.kill, "server", signal.SIGTERM))
        await asyncio.sleep(0)
        await sandbox.release()
        assert await stopping == 0
        [grant] = await sandbox.ledger()
        sent_before = grant["refreshes"]
        deployment.start_server()
        await until(deployment, account.id, lambda each: each.last_refresh_time is not None)
        await sandbox.settings(access_token_seconds=4)
        deadline = time.monotonic() + PATIENCE
        while (await sandbox.ledger())[0]["refreshes"] == sent_before:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        [grant] = await sandbox.ledger()
        assert (grant["replays"], grant["alive"]) == (0, True)


async def test_a_kill_in_the_middle_of_a_refresh_loses_no_grant_that_was_not_rotated(deployment: Local) -> None:
    account = await connected(deployment)
    async with Control(str(deployment.sandbox_url)) as sandbox:
        await sandbox.fault("token", "hold_before", only="refresh")
        await sandbox.until_held()
        deployment.kill("server")
        await sandbox.clear_faults()
        await sandbox.settings(access_token_seconds=7200)
        deployment.start_server()
        refreshed = await until(deployment, account.id, lambda each: each.last_refresh_time is not None)
        assert refreshed.status is AccountStatus.ACTIVE


async def test_a_second_server_on_the_same_database_is_refused(deployment: Local) -> None:
    done = subprocess.run(deployment.server_command(), capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "another process holds" in done.stderr and "stop it first" in done.stderr
    assert "Traceback" not in done.stderr


async def test_grpcurl_works_without_proto_files(deployment: Local) -> None:
    listed = grpcurl(deployment, deployment.target, "list")
    assert "synposter.accounts.v1.AccountService" in listed.stdout
    account = await connected(deployment)
    got = grpcurl(
        deployment,
        "-d",
        json.dumps({"id": account.id}),
        deployment.target,
        "synposter.accounts.v1.AccountService/GetAccount",
    )
    assert json.loads(got.stdout)["account"]["handle"] == "ada"
    stranger = grpcurl(deployment, deployment.target, "list", key="nobody's")
    assert stranger.returncode != 0


async def test_the_hints_of_make_run_work_as_they_stand(deployment: Local) -> None:
    lines = [line.strip() for line in hints(deployment).splitlines()]
    [command] = [line for line in lines if "grpcurl" in line]
    done = subprocess.run(
        ["bash", "-c", command.replace(".venv/bin/grpcurl", GRPCURL)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [url] = [line for line in lines if line.startswith("http://") and "authorize" in line]
    async with Control(str(deployment.sandbox_url)) as sandbox:
        callback = await sandbox.consent(url, "ada")
    with urllib.request.urlopen(callback, timeout=10) as page:
        assert b"Your account is connected" in page.read()
    again = subprocess.run(
        ["bash", "-c", command.replace(".venv/bin/grpcurl", GRPCURL)], capture_output=True, text=True, check=False
    )
    assert json.loads(again.stdout)["accounts"][0]["handle"] == "ada"


async def test_the_files_are_for_their_owner_alone_and_hold_no_token(deployment: Local) -> None:
    await connected(deployment)
    async with Control(str(deployment.sandbox_url)) as sandbox:
        [grant] = await sandbox.ledger()
    deployment.kill("server", signal.SIGTERM)
    for path in filter(Path.is_file, deployment.folder.rglob("*")):
        if path.name.startswith(("accounts.db", "keys", "api-key", "client-secret")):
            assert path.stat().st_mode & 0o077 == 0, path
        if path.name != "client-secret":
            assert b"canary" not in path.read_bytes(), path
    log = (deployment.folder.parent / "processes.log").read_bytes()
    assert b"canary" not in log and grant["refresh_token"].encode() not in log


@pytest.mark.parametrize("damage", ["missing", "world_readable", "short", "other"])
async def test_a_wrong_key_stops_the_start_and_changes_nothing(deployment: Local, damage: str) -> None:
    await connected(deployment)
    deployment.kill("server", signal.SIGTERM)
    keys, database = deployment.folder / "keys.json", deployment.folder / "accounts.db"
    before = database.read_bytes()
    text = keys.read_text()
    if damage == "missing":
        keys.unlink()
    elif damage == "world_readable":
        keys.chmod(0o644)
    elif damage == "short":
        ring = json.loads(text)
        ring["keys"][0]["key"] = ring["keys"][0]["key"][:20]
        keys.write_text(json.dumps(ring))
    else:
        ring = json.loads(text)
        ring["keys"][0]["key"] = "A" * 42 + "E="
        keys.write_text(json.dumps(ring))
    done = subprocess.run(deployment.server_command(), capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "key" in done.stderr and "Traceback" not in done.stderr
    assert database.read_bytes() == before
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{deployment.public_url}/healthz", timeout=2)


async def test_a_new_key_is_never_made_over_existing_data(deployment: Local) -> None:
    deployment.kill("server", signal.SIGTERM)
    command = deployment.server_command("keys", "new")
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert refused.returncode == 2 and "never overwritten" in refused.stderr
    (deployment.folder / "keys.json").unlink()
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert refused.returncode == 2
    assert not (deployment.folder / "keys.json").exists()


async def test_a_database_that_was_not_migrated_is_not_served(tmp_path: Path, deployment: Local) -> None:
    deployment.kill("server", signal.SIGTERM)
    (deployment.folder / "accounts.db").unlink()
    done = subprocess.run(deployment.server_command(), capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2 and "migrate" in done.stderr


async def test_metrics_have_a_port_of_their_own_and_no_ids(deployment: Local) -> None:
    from sandbox.ports import free_port

    deployment.kill("server", signal.SIGTERM)
    port = free_port()
    text = deployment.config_file.read_text().replace("[log]", f'metrics_listen = "127.0.0.1:{port}"\n\n[log]')
    deployment.config_file.write_text(text)
    deployment.start_server()
    account = await connected(deployment)
    await until(deployment, account.id, lambda each: each.last_refresh_time is not None)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        metrics = response.read().decode()
    assert 'accounts_refreshes_total{outcome="refreshed",platform="twitter"}' in metrics
    assert account.id not in metrics and "canary" not in metrics


async def test_an_unknown_key_is_unauthenticated(deployment: Local) -> None:
    async with AsyncAccounts(deployment.target, "not-a-key") as stranger:
        with pytest.raises(AccountsError) as caught:
            await stranger.get("01930000-0000-7000-8000-000000000000")
    assert caught.value.reason == "CALLER_UNKNOWN"
