"""The control API: what tests and demos know and change; and the process around it."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.control import Control
from sandbox.server import NotLoopback, running
from tests.sandbox.conftest import REDIRECT, RegisteredApp


async def test_the_ledger_knows_the_live_tokens_of_each_grant(app: RegisteredApp) -> None:
    token = await app.tokens("grace")
    _, fresh = await app.refresh(token["refresh_token"])
    [grant] = await app.control.ledger()
    assert (grant["username"], grant["client_id"], grant["alive"]) == ("grace", "app", True)
    assert (grant["access_token"], grant["refresh_token"]) == (fresh["access_token"], fresh["refresh_token"])
    assert (grant["spent"], grant["refreshes"]) == ([token["refresh_token"]], 1)


async def test_each_request_is_on_record_with_its_grant_and_its_outcome(app: RegisteredApp) -> None:
    token = await app.tokens()
    await app.me(token["access_token"])
    await app.refresh("garbage")
    await app.revoke(token["refresh_token"])
    [grant] = await app.control.ledger()
    assert [(each["endpoint"], each.get("grant_id"), each["outcome"]) for each in await app.control.requests()] == [
        ("authorize", None, "allowed"),
        ("token", grant["id"], "200"),
        ("identity", grant["id"], "200"),
        ("token", None, "400"),
        ("revoke", grant["id"], "200"),
    ]
    await app.control.clear_requests()
    assert await app.control.requests() == []


async def test_two_users_are_there_and_others_can_come(app: RegisteredApp) -> None:
    added = await app.control.add_user("alan", "Alan Turing")
    users = {user["username"]: user for user in await app.control.users()}
    assert [user["name"] for user in users.values()] == ["Ada Lovelace", "Grace Hopper", "Alan Turing"]
    assert users["alan"]["id"] == added["id"]
    with pytest.raises(AssertionError, match="409"):
        await app.control.add_user("ada", "Another Ada")


async def test_a_reset_forgets_all_but_the_apps(app: RegisteredApp) -> None:
    await app.control.rename("ada", "countess")
    await app.tokens("countess")
    await app.control.fault("token", "status_before")
    await app.control.reset()
    assert await app.control.ledger() == await app.control.requests() == []
    assert (await app.tokens())["token_type"] == "bearer"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("users", {"username": "alan"}),
        ("users", ["alan"]),
        ("clients", {"client_id": "half"}),
        ("settings", {"replay": "sometimes"}),
        ("settings", {"access_token_second": 1}),
    ],
    ids=str,
)
async def test_a_body_that_is_not_understood_is_refused(app: RegisteredApp, path: str, body: Any) -> None:
    async with app.http.post(f"{app.control.url}/control/{path}", json=body) as response:
        assert response.status == 400


async def test_a_user_keeps_the_id_that_the_platform_gave(app: RegisteredApp) -> None:
    async with app.http.patch(f"{app.control.url}/control/users/ada", json={"id": "1"}) as response:
        assert response.status == 400


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "example.org"])
async def test_it_serves_this_machine_only(host: str) -> None:
    with pytest.raises(NotLoopback):
        async with running(host):
            pass


@contextlib.asynccontextmanager
async def sandbox_process(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "sandbox", *words, stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_process_says_where_it_is_and_stops_when_told(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    words = [
        "--listen", "127.0.0.1:0", "--client-id", "mine", "--client-secret-file", str(secret),
        "--redirect-uri", REDIRECT, "--access-token-seconds", "60",
    ]  # fmt: skip
    async with sandbox_process(*words) as process:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        assert line.startswith("sandbox ready on http://127.0.0.1:")
        async with Control(line.split()[-1]) as control, RegisteredApp.opened(control, "mine", "from-a-file") as app:
            assert (await app.tokens())["expires_in"] == 60
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--listen", "0.0.0.0:0"], "0.0.0.0 is not a loopback address"),
        (["--listen", "8081"], "is not host:port"),
        (["--redirect-uri", REDIRECT], "--client-secret-file"),
    ],
    ids=str,
)
async def test_the_process_says_why_it_does_not_start(words: list[str], why: str) -> None:
    async with sandbox_process(*words) as process:
        output, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode
    assert output == b""
    assert why in errors.decode()
