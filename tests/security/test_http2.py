"""Abuse of HTTP/2 on the gRPC port: others are served as before, and nothing of it stays (row G4)."""

import asyncio
import contextlib
import itertools
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from hyperframe.frame import SettingsFrame
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter_accounts import AsyncAccounts

from server.rpc import health
from server.rpc import server as rpc_server
from tests.faults.processes import fleet
from tests.rpc.conftest import ID, Edge, bearer, refusal_of
from tests.security.http2 import ATTACKS, PREFACE

MOST_SECONDS = 0.1
GROWTH_MB = 100
"""What the allocator may keep of what was held at once; it comes to a stop, as the long form shows."""
WITH_A_KEY = ("rapid_reset", "headers_without_end", "zero_window")
"""What a caller can do besides: its calls are carried out."""
GET = pb.GetAccountRequest(id=ID)


@dataclass
class Target:
    """A real server, one account in it, and a client that nobody may notice."""

    accounts: AsyncAccounts
    account_id: str
    port: int
    pid: int
    key: str

    async def slow(self, seconds: float, of_a_hundred: int = 95) -> float:
        """What so many of a hundred calls stay below, in seconds."""
        took, until = [], time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            await self.accounts.get(self.account_id)
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.004)
        return sorted(took)[len(took) * of_a_hundred // 100]

    def megabytes(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        [line] = [line for line in status if line.startswith("VmRSS")]
        return int(line.split()[1]) // 1024

    def files(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    async def attacked(
        self, attack: str, seconds: float, key: str = "a-strangers-key", of_a_hundred: int = 95
    ) -> tuple[float, dict[str, int]]:
        """How slow the others' calls are meanwhile, and what the attacker managed."""
        command = (sys.executable, "-m", "tests.security.http2", attack, str(self.port), str(seconds), key)
        attacker = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            await asyncio.sleep(0.5)
            slow = await self.slow(seconds - 0.5, of_a_hundred)
        finally:
            output, _ = await attacker.communicate()
        return slow, json.loads(output)


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    async with fleet(tmp_path) as running:
        await running.seed(1)
        running.start()
        local = running.servers[0]
        [(account_id,)] = running.sql("SELECT id FROM accounts")
        async with AsyncAccounts(local.target, local.api_key) as accounts:
            port = int(local.target.rpartition(":")[2])
            yield Target(accounts, account_id, port, local.pid("server"), local.api_key)


async def settled(target: Target, files: int) -> None:
    """Returns when the attacker's connections are gone."""
    async with asyncio.timeout(10):
        while target.files() > files:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.mark.alone
async def test_others_are_served_while_the_port_is_abused_and_nothing_of_it_stays(target: Target) -> None:
    await target.slow(0.5)
    files, before = target.files(), target.megabytes()
    plans = [(attack, "a-strangers-key") for attack in ATTACKS] + [(attack, target.key) for attack in WITH_A_KEY]
    for attack, key in plans:
        for seconds in (2, 4, 8):
            # Whatever else runs on this machine makes itself felt, but not three times in a row; and what an attack
            # sends at first, as much as one connection may, takes a slow machine a second.
            bound = max(MOST_SECONDS, 3 * await target.slow(0.5))
            slow, managed = await target.attacked(attack, seconds, key)
            assert managed["frames"] >= 200, f"{attack} was carried out"
            assert target.megabytes() < before + GROWTH_MB, attack
            if slow < bound:
                break
            assert seconds < 8, f"{attack}: {slow:.3f} s"
    await settled(target, files)


@pytest.mark.long
@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_long_attack_takes_no_more_memory_than_a_short_one_and_the_p99_stays_low(
    target: Target, attack: str
) -> None:
    await target.slow(0.5)
    files, before = target.files(), []
    for seconds in (10, 20):
        await target.attacked(attack, seconds)
        before.append(target.megabytes())
    p99, managed = await target.attacked(attack, 30, of_a_hundred=99)
    # What a connection holds of headers until it is thrown out varies by some tens, whenever one looks.
    assert target.megabytes() < max(before) + 40, managed
    assert p99 < MOST_SECONDS
    await settled(target, files)


@pytest.mark.alone
async def test_who_pings_without_pause_is_thrown_out(target: Target) -> None:
    for seconds in (4, 8, 16):  # a machine that is busy with something else may not get round to it at once
        _, managed = await target.attacked("pings", seconds)
        if managed["connections"] > 3:
            return
    raise AssertionError(f"who is not thrown out has one: {managed}")


# --- connections


@pytest.fixture
async def edge(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Edge]:
    """A server that takes 50 calls at once."""
    monkeypatch.setattr(rpc_server, "MOST_CALLS", 50)
    edge = Edge()
    await edge.start()
    yield edge
    await edge.stop()


async def answers(edge: Edge, code: grpc.StatusCode) -> None:
    """Returns when a call ends so; the end of a connection takes a moment to be seen."""
    async with asyncio.timeout(10):
        while True:
            call = edge.stub.GetAccount(GET, metadata=bearer("full-key"), timeout=5)
            if await call.code() is code:
                return
            await asyncio.sleep(0.05)


async def test_calls_that_are_begun_and_never_ended_take_a_bounded_place_and_give_it_back(edge: Edge) -> None:
    frames = itertools.islice(ATTACKS["headers_without_end"]("a-strangers-key"), 60)
    begun = b"".join(frame.serialize() for batch in frames for frame in batch)
    await answers(edge, grpc.StatusCode.OK)
    attacker = connect(edge, GREETING + begun)
    await answers(edge, grpc.StatusCode.RESOURCE_EXHAUSTED)
    attacker.close()
    await answers(edge, grpc.StatusCode.OK)


async def test_as_many_calls_as_a_connection_takes_are_all_answered() -> None:
    edge = Edge()
    await edge.start()
    calls = [edge.stub.GetAccount(GET, metadata=bearer("full-key")) for _ in range(2_000)]
    codes = Counter([await call.code() for call in calls])
    await edge.stop()
    assert codes == {grpc.StatusCode.OK: 2_000}


async def test_strangers_watch_the_health_in_bounded_numbers_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch, edge: Edge
) -> None:
    monkeypatch.setattr(health, "MOST_WATCHES", 5)
    stub = HealthStub(edge.channel)
    watches = [stub.Watch(HealthCheckRequest()) for _ in range(5)]
    for watch in watches:
        assert (await watch.read()).status == HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Watch(HealthCheckRequest()).read()
    assert refusal_of(caught.value).facts == {"limit": "watches"}
    await edge.call("GetAccount", GET)
    assert (await stub.Check(HealthCheckRequest())).status == HealthCheckResponse.SERVING
    watches.pop().cancel()
    await asyncio.sleep(0.2)
    assert (await stub.Watch(HealthCheckRequest()).read()).status == HealthCheckResponse.SERVING


@contextlib.asynccontextmanager
async def edge_with(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> AsyncIterator[Edge]:
    """A server with one of its options made smaller."""
    options = dict(rpc_server.OPTIONS)
    assert options[name] > value, "it is set, and larger"
    monkeypatch.setattr(rpc_server, "OPTIONS", tuple({**options, name: value}.items()))
    edge = Edge()
    await edge.start()
    yield edge
    await edge.stop()


def connect(edge: Edge, greeting: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(edge.address.rpartition(":")[2])), timeout=5)
    connection.sendall(greeting)
    return connection


async def closed(connection: socket.socket, seconds: float) -> bool:
    """Whether the server closes it within so long; it reads what comes until then."""
    connection.setblocking(False)
    loop, until = asyncio.get_running_loop(), time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            async with asyncio.timeout(left):
                if not await loop.sock_recv(connection, 4096):
                    return True
        except TimeoutError:
            return False
        except ConnectionError:
            return True
    return False


GREETING = PREFACE + SettingsFrame(0).serialize()


@pytest.mark.parametrize("said", [b"", PREFACE[:10], PREFACE], ids=["nothing", "half a preface", "no settings"])
async def test_a_connection_that_never_gets_going_is_closed(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    async with edge_with(monkeypatch, "grpc.server_handshake_timeout_ms", 400) as edge:
        assert await closed(connect(edge, said), 5)


async def test_a_connection_without_calls_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge_with(monkeypatch, "grpc.max_connection_idle_ms", 400) as edge:
        assert await closed(connect(edge, GREETING), 5)
        await edge.call("GetAccount", GET)
        await asyncio.sleep(1)
        await edge.call("GetAccount", GET)


async def test_there_are_only_so_many_connections_and_who_leaves_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge_with(monkeypatch, "grpc.max_allowed_incoming_connections", 20) as edge:
        await edge.call("GetAccount", GET)
        held = [connect(edge, GREETING) for _ in range(40)]
        gone = await asyncio.gather(*(closed(each, 1) for each in held))
        assert gone.count(False) == 19, "and the one of the channel"
        await edge.call("GetAccount", GET)
        for each in held:
            each.close()
        await asyncio.sleep(0.5)
        assert not await closed(connect(edge, GREETING), 0.5)
