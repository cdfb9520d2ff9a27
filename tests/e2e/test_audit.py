"""The audit of a running service: read over gRPC, walked by the command, changed by somebody with a database client."""

import asyncio
import json
import re
import time
from typing import Any

import cysqlite

from sandbox.local import Local
from server.commands import operate
from server.commands.operate import operator
from tests.e2e.conftest import Whole
from tests.e2e.test_operating import command
from tests.e2e.test_processes import connected, grpcurl

OPERATIONS = "synposter.accounts.v1.OperationsService"
ACCOUNTS = "synposter.accounts.v1.AccountService"


def audited(local: Local, **request: Any) -> list[dict[str, Any]]:
    told = grpcurl(local, "-d", json.dumps(request), local.target, f"{OPERATIONS}/ListAuditEvents")
    events: list[dict[str, Any]] = json.loads(told.stdout).get("events", [])
    return events


async def linked(local: Local, **request: Any) -> list[dict[str, Any]]:
    """The events, once the running server has linked them all."""
    until = time.monotonic() + 10
    while not (events := audited(local, **request)) or not all("chain_position" in event for event in events):
        assert time.monotonic() < until, events
        await asyncio.sleep(0.2)
    return events


async def test_a_running_server_links_its_events_and_the_command_names_the_one_that_was_edited(
    deployment: Local,
) -> None:
    account = await connected(deployment)
    events = await linked(deployment, account_id=account.id)
    assert (events[-1]["kind"], events[-1]["caller"], events[-1]["profile_id"]) == (
        "connected", "local", account.profile_id,
    )  # fmt: skip
    assert events[-1]["peer"].startswith("ipv4:127.0.0.1:") and events[-1]["request_id"]
    done = command(deployment, "audit", "verify")
    assert done.returncode == 0, done.stderr + done.stdout
    assert re.search(r"^begins: at its first event, at 2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d UTC$", done.stdout, re.MULTILINE)
    head = next(line.removeprefix("head: ") for line in done.stdout.splitlines() if line.startswith("head: "))
    assert command(deployment, "audit", "verify", "--head", head).returncode == 0
    assert command(deployment, "audit", "verify", "--head", head[:-1] + "x").returncode == 2

    connection = cysqlite.connect(str(deployment.folder / "accounts.db"))
    connection.execute("UPDATE events SET caller = 'nobody' WHERE id = ?", (events[-1]["id"],))
    connection.close()
    done = command(deployment, "audit", "verify", "--head", head)
    assert done.returncode == 1
    assert f"BROKEN at position {events[-1]['chain_position']} (event {events[-1]['id']})" in done.stdout


async def test_a_running_server_audits_what_it_refuses_and_what_operators_say(deployment: Local) -> None:
    nobody = "01930000-0000-7000-8000-000000000000"
    for _ in range(3):
        grpcurl(deployment, "-d", json.dumps({"id": nobody}), deployment.target, f"{ACCOUNTS}/GetAccount")
    [refused] = await linked(deployment, kind="call_refused")
    assert (refused["caller"], refused["result"], refused["account_id"]) == ("local", "ACCOUNT_NOT_FOUND", nobody)
    with deployment.config_file.open("a") as config:
        config.write(f'\n[callers.web]\napi_keys_sha256 = ["{"0" * 64}"]\n')
        config.write("permissions = []\nprofiles = []\nplatforms = []\n")
    assert command(deployment, "callers", "block", "web", "--reason", "stolen").returncode == 0
    [blocked] = await linked(deployment, kind="caller_blocked")
    assert (blocked["caller"], blocked["facts"]["blocked"]) == (f"operator {operator()}", "web")


async def test_events_that_no_server_has_linked_for_a_minute_are_told_of_and_break_nothing(whole: Whole) -> None:
    app = whole.app
    lines, is_whole = await operate.verify_audit(app.settings, None)
    assert is_whole and "not linked yet: 0" in lines
    await app.store.set_block("nobody", reason="stolen", operator="ada")
    await app.engine.write(lambda database: database.execute_sql("UPDATE events SET time = time - 61000000"))
    lines, is_whole = await operate.verify_audit(app.settings, None)
    assert is_whole and lines[0].startswith("the chain is whole") and "not linked yet: 1" in lines
    assert "  older than a minute, so no server has linked them; one that runs does, and nothing is broken" in lines
    await app._census()
    assert (app.metrics.registry.get_sample_value("accounts_audit_unlinked_seconds") or 0) > 60
    await app.linker.work_off()
    lines, is_whole = await operate.verify_audit(app.settings, None)
    assert is_whole and lines[-1] == "not linked yet: 0"
