"""Watching: how long after a change begins it is told to one watcher, and to the last of 2,000; memory a watcher."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from synposter.accounts.v1 import account_service_pb2 as pb
from synposter_accounts import Accounts

from bench.deployments import configure, deployment, resident
from bench.fill import PER_PROFILE, account_id
from bench.report import Row
from bench.target import grpc_port
from sandbox.local import Local

MANY = 2_000
CHANGES = PER_PROFILE // 2
SETTLE_SECONDS = 2


@contextlib.contextmanager
def watchers(local: Local, resume_token: str) -> Iterator[Callable[[str], str]]:
    """A process with watchers of the first profile, which resume there; what asks it a line and returns its answer."""
    request = pb.WatchAccountsRequest(profile_id="acme/0", resume_token=resume_token).SerializeToString()
    task = {"port": grpc_port(local), "key": local.api_key, "request": request.hex()}
    command = [sys.executable, "-m", "bench.watchers", json.dumps(task)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(line: str) -> str:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline()

    try:
        yield ask
    finally:
        process.terminate()
        process.wait()


def delays(ask: Callable[[str], str], accounts: Accounts, numbers: range) -> list[float]:
    """Milliseconds from the call of Revoke, whose commit is in them, until the last watcher is told."""
    found = []
    for number in numbers:
        began = time.time()
        accounts.revoke(account_id(number))
        found.append((float(ask("next")) - began) * 1000)
        time.sleep(0.05)
    return found


def present(accounts: Accounts) -> str:
    """The token with which a watch resumes here and now."""
    with accounts.watch("acme/0") as listing:
        return next(listing).resume_token


def p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def watch(_: float) -> list[Row]:
    with deployment(2 * PER_PROFILE) as local:
        configure(local, "[callers.local]", f"[callers.local]\nwatchers = {MANY + 1}")
        local.start_server()
        with Accounts(local.target, local.api_key) as accounts:
            with watchers(local, present(accounts)) as ask:
                ask("open 1")
                one = delays(ask, accounts, range(CHANGES))
            before = resident(local.pid("server"))
            # From now on, not from where the other began: what they would have to catch up with is no change of now.
            with watchers(local, present(accounts)) as ask:
                ask(f"open {MANY}")
                time.sleep(SETTLE_SECONDS)
                memory = (resident(local.pid("server")) - before) * 1024 / MANY
                many = delays(ask, accounts, range(CHANGES, 2 * CHANGES))
    return [
        Row("change to a single watcher, p99", f"{p99(one):.0f} ms", "< 20 ms", p99(one) < 20),
        Row("change to the last of 2,000, p99", f"{p99(many):.0f} ms", "< 300 ms", p99(many) < 300),
        Row("memory a watcher", f"{memory:.0f} kB", "< 50 kB", memory < 50),
    ]
