"""Reflection answers grpcurl and other programs, and only callers."""

import asyncio
import sys
from pathlib import Path

import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

SERVICES = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    "synposter.accounts.v1.AccountService",
    "synposter.accounts.v1.OperationsService",
    "synposter.accounts.v1.PlatformService",
)
GRPCURL = Path(sys.executable).parent / "grpcurl"
ASK = reflection_pb2.ServerReflectionRequest(list_services="")


async def grpcurl(*arguments: str, key: str = "full-key") -> tuple[int, str]:
    command = [str(GRPCURL), "-plaintext", "-H", f"authorization: Bearer {key}", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


async def ask(edge, **options) -> list[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(edge.channel)
    call = stub.ServerReflectionInfo(iter([ASK]), timeout=10, **options)
    return [service.name async for answer in call for service in answer.list_services_response.service]


async def test_a_caller_of_any_permission_is_told_the_services(edge, tools) -> None:
    assert sorted(await ask(edge, metadata=tools.bearer("powerless-key"))) == sorted(SERVICES)


@pytest.mark.parametrize("credential", [(), (("authorization", "Bearer nobody"),)], ids=["no key", "an unknown key"])
async def test_a_stranger_is_told_nothing(edge, tools, credential) -> None:
    call = reflection_pb2_grpc.ServerReflectionStub(edge.channel).ServerReflectionInfo(metadata=credential, timeout=10)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert tools.refusal_of(caught.value).reason == "CALLER_UNKNOWN"


async def test_a_garbled_question_is_an_invalid_argument(edge, tools) -> None:
    reflect = edge.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    call = reflect(metadata=tools.bearer("full-key"), timeout=10)
    await call.write(b"\xff")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert tools.refusal_of(caught.value).facts == {"field": "request"}


async def test_without_reflection_there_is_none(tools) -> None:
    edge = tools.Edge(reflection=False)
    await edge.start()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(edge, metadata=tools.bearer("full-key"))
    await edge.stop()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_grpcurl_lists_the_services_with_a_key(edge) -> None:
    code, output = await grpcurl(edge.address, "list")
    assert (code, output.split()) == (0, sorted(SERVICES))


async def test_grpcurl_without_a_callers_key_is_refused(edge) -> None:
    code, output = await grpcurl(edge.address, "list", key="nobody")
    assert code != 0
    assert "AccountService" not in output


async def test_grpcurl_calls_a_method_with_no_proto_files(edge, tools) -> None:
    method = "synposter.accounts.v1.AccountService/GetAccount"
    code, output = await grpcurl("-d", f'{{"id": "{tools.ID}"}}', edge.address, method)
    assert code == 0, output
    assert '"handle": "ada"' in output
