"""Acting: Call beside a bare forwarder, and reads beside a thousand calls that wait for their platform."""

from __future__ import annotations

import json
import random
import time

from synposter.accounts.v1 import platform_service_pb2 as pb

from bench.deployments import configure, deployment, process
from bench.fill import account_id
from bench.report import Row, at_least, at_most, per_second
from bench.rewrap import seal_all
from bench.target import Target, get_account, grpc_port, side_by_side
from sandbox.local import Local

ACCOUNTS = 10_000
IN_FLIGHT = 1_000
RAMP_SECONDS = 2
TURNS = 3
BODY = json.dumps({"text": "x" * 1_013}).encode()
"""1 kB."""


def acting(seconds: float) -> list[Row]:
    calls, bares = beside_forwarder(seconds)
    return [
        per_second("bare forwarder, calls/s", bares),
        per_second("Call with 1 kB of JSON, calls/s", calls),
        at_least("Call / bare forwarder", [a / b for a, b in zip(calls, bares, strict=True)], 0.4),
        *beside_waiting_calls(seconds),
        *at_one_second(seconds),
    ]


def beside_forwarder(seconds: float) -> tuple[list[float], list[float]]:
    """Calls a second of the service and of the forwarder, measured in turns."""
    with (
        process("bench.api_endpoint") as platform,
        process("bench.forwarder", str(platform)) as port,
        deployment(ACCOUNTS) as local,
    ):
        serve(local, platform)
        return side_by_side(call(local), forward(port), seconds)


def beside_waiting_calls(seconds: float) -> list[Row]:
    """What reads lose while a thousand calls wait for their platform.

    It takes long enough for all of them to wait while the reads are measured: at one second each they would be a
    thousand calls a second, and the reads would tell of the processor alone.
    """
    waits = RAMP_SECONDS + 1 + seconds + 1
    with process("bench.api_endpoint", str(waits)) as platform, deployment(ACCOUNTS) as local:
        serve(local, platform)
        get, waiting = get_account(local, ACCOUNTS), call(local, reads())
        get.run(1)
        ratios = []
        for _turn in range(TURNS):
            idle = get.run(seconds)
            with waiting.kept_up(IN_FLIGHT, 2 * waits, RAMP_SECONDS) as ended:
                time.sleep(RAMP_SECONDS + 1)
                busy = get.run(seconds)
                assert ended().good >= IN_FLIGHT, "not all calls were answered"
            ratios.append(busy.p99 / idle.p99)
    return [at_most(f"GetAccount's p99 beside {IN_FLIGHT:,} waiting calls", ratios, 2)]


def at_one_second(seconds: float) -> list[Row]:
    """A thousand calls kept in flight to a platform that takes one second; none is refused."""
    with process("bench.api_endpoint", "1") as platform, deployment(ACCOUNTS) as local:
        serve(local, platform)
        with call(local).kept_up(IN_FLIGHT, seconds + 5, RAMP_SECONDS) as ended:
            result = ended()
    figure = f"{result.rate:,.0f} a second, p99 {result.p99 / 1000:.1f} s"
    return [Row(f"{IN_FLIGHT:,} in flight, the platform takes 1 s", figure)]


def serve(local: Local, platform: int) -> None:
    """Starts the service over accounts whose tokens can be opened; calls go to the platform of the bench."""
    at = 'api_base = "http://127.0.0.1:{}"'
    configure(local, at.format(local.ports["sandbox"]), at.format(platform))
    seal_all(local)
    local.start_server()


def call(local: Local, requests: list[bytes] | None = None) -> Target:
    method = "/synposter.accounts.v1.PlatformService/Call"
    return Target(grpc_port(local), method, local.api_key, requests or messages())


def forward(port: int) -> Target:
    return Target(port, "/bench.Bare/Forward", "", messages())


def messages() -> list[bytes]:
    """Posts for one account after the other."""
    rng = random.Random(7)
    return [
        pb.CallRequest(
            account_id=account_id(rng.randrange(ACCOUNTS)),
            method="POST",
            path="/2/tweets",
            content_type="application/json",
            body=BODY,
        ).SerializeToString()
        for _ in range(2_000)
    ]


def reads() -> list[bytes]:
    """Reads end with the caller's connection: posts would go on, and fill the places of the next turn."""
    return [
        pb.CallRequest(account_id=account_id(number), method="GET", path="/2/tweets/1").SerializeToString()
        for number in range(2_000)
    ]
