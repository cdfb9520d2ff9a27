"""A service that is told what to answer, and each client in turn."""

from collections.abc import AsyncIterator

import grpc.aio
import pytest
from synposter.accounts.v1 import account_service_pb2_grpc as pb_grpc
from synposter.accounts.v1 import platform_service_pb2_grpc as platform_grpc
from synposter_accounts import Accounts, AsyncAccounts

from tests.clients.either import Either
from tests.clients.told import Told


@pytest.fixture
async def served() -> AsyncIterator[tuple[Told, str]]:
    told = Told()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
    pb_grpc.add_AccountServiceServicer_to_server(told, server)
    platform_grpc.add_PlatformServiceServicer_to_server(told, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield told, f"127.0.0.1:{port}"
    await server.stop(0)


@pytest.fixture
def told(served: tuple[Told, str]) -> Told:
    return served[0]


@pytest.fixture(params=[Accounts, AsyncAccounts])
async def client(request: pytest.FixtureRequest, served: tuple[Told, str]) -> AsyncIterator[Either]:
    async with Either(request.param, served[1]) as either:
        yield either
