"""Watching: how long after a change begins it is told to one watcher, and to the last of 2,000; memory a watcher."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter_accounts import Accounts, Listing

from bench.deployments import configure, deployment, process, resident
from bench.fill import account_id
from bench.report import Row
from bench.target import grpc_port
from bench.watchers import CHANGE
from sandbox.local import Local

MANY = 2_000
CHANGES = 150
"""To one watcher, and as many to all of them."""
SETTLE_SECONDS = 2


Ask: TypeAlias = Callable[[str], str]
"""Asks a process of watchers a line, and returns its answer."""


def watchers(local: Local, resume_token: str) -> contextlib.AbstractContextManager[Ask]:
    """Watchers of all accounts, which resume there."""
    request = pb.WatchAccountsRequest(resume_token=resume_token).SerializeToString()
    method = "/synposter.accounts.v1.AccountService/WatchAccounts"
    return process_of(port=grpc_port(local), method=method, key=local.api_key, request=request.hex())


@contextlib.contextmanager
def process_of(**task: Any) -> Iterator[Ask]:
    command = [sys.executable, "-m", "bench.watchers", json.dumps(task)]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(line: str) -> str:
        assert running.stdin is not None and running.stdout is not None
        running.stdin.write(line + "\n")
        running.stdin.flush()
        return running.stdout.readline()

    try:
        yield ask
    finally:
        running.terminate()
        running.wait()


def delays(ask: Ask, change: Callable[[int], object], numbers: range) -> list[float]:
    """Milliseconds from the call that changes something, whose commit is in them, until the last watcher is told."""
    found = []
    for number in numbers:
        began = time.time()
        change(number)
        found.append((float(ask("next")) - began) * 1000)
        time.sleep(0.05)
    return found


def present(accounts: Accounts) -> str:
    """The token with which a watch resumes here and now."""
    with accounts.watch() as watch:
        return next(told.resume_token for told in watch if isinstance(told, Listing) and told.complete)


def bare() -> list[float]:
    """The same delays of streams that are told a message of that size by a server that does nothing else."""
    message = bytes((CHANGE, 250, 1)) + b"x" * 250 + b"y" * 100
    with (
        process("bench.bare_streams") as port,
        process_of(port=port, method="/bench.Bare/Watch", key="", request="") as ask,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        tell = channel.unary_unary("/bench.Bare/Tell")
        ask(f"open {MANY}")
        time.sleep(SETTLE_SECONDS)
        return delays(ask, lambda _: tell(message), range(CHANGES))


def p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def watch(_: float) -> list[Row]:
    with deployment(2 * CHANGES) as local:
        configure(local, "[callers.local]", f"[callers.local]\nwatchers = {MANY + 1}")
        local.start_server()
        with Accounts(local.target, local.api_key) as accounts:

            def revoke(number: int) -> None:
                accounts.revoke(account_id(number))

            with watchers(local, present(accounts)) as ask:
                ask("open 1")
                one = delays(ask, revoke, range(CHANGES))
            before = resident(local.pid("server"))
            # From now on, not from where the other began: what they would have to catch up with is no change of now.
            with watchers(local, present(accounts)) as ask:
                ask(f"open {MANY}")
                time.sleep(SETTLE_SECONDS)
                memory = (resident(local.pid("server")) - before) * 1024 / MANY
                many = delays(ask, revoke, range(CHANGES, 2 * CHANGES))
    return [
        Row("change to a single watcher, p99", f"{p99(one):.0f} ms", "< 20 ms", p99(one) < 20),
        Row("change to the last of 2,000, p99", f"{p99(many):.0f} ms", "< 300 ms", p99(many) < 300),
        Row("the same of bare streams, p99", f"{p99(bare()):.0f} ms"),
        Row("memory a watcher", f"{memory:.0f} kB", "< 50 kB", memory < 50),
    ]
