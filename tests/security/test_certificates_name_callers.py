"""Callers by the names in their certificates (rows E1, E2, E6): those names and no others, and never two at once."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from synposter.accounts.v1 import account_service_pb2 as pb

from server.accounts.callers import Caller, Permission
from server.rpc.certificates import Certificates
from tests.authority import Authority
from tests.rpc.conftest import CALLERS, ID, Edge, bearer, refusal_of

GET = pb.GetAccountRequest(id=ID)
OURS = Authority()
PUBLISHER = Caller("publisher", permissions=frozenset({Permission.READ}))
BY_SAN = {
    "spiffe://test/publisher": PUBLISHER,
    "dns:publisher.test": PUBLISHER,
    "spiffe://test/full": dataclasses.replace(CALLERS["full-key"]),
}


@asynccontextmanager
async def called_with(folder: Path, *sans: str, name: str = "leaf") -> AsyncIterator[Edge]:
    """A server, and a channel to it whose client has a certificate with these names."""
    edge = Edge(by_san=BY_SAN)
    credentials = OURS.credentials(OURS.issue(*sans, name=name))
    await edge.start(Certificates(OURS.server_files(folder, clients_of=OURS)), credentials)
    try:
        yield edge
    finally:
        await edge.stop()


async def refusal(edge: Edge, metadata: tuple[tuple[str, str], ...]) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await edge.stub.GetAccount(GET, metadata=metadata)
    assert edge.use_cases.calls == []
    return refusal_of(caught.value)


@pytest.mark.parametrize(
    "sans", [("spiffe://test/publisher",), ("ip:10.0.0.1", "dns:publisher.test", "dns:other.test")]
)
async def test_a_caller_is_known_by_a_name_in_its_certificate(tmp_path: Path, sans: tuple[str, ...]) -> None:
    async with called_with(tmp_path, *sans) as edge:
        await edge.stub.GetAccount(GET)
        [(_, caller, _)] = edge.use_cases.calls
        assert caller is PUBLISHER
        edge.use_cases.calls.clear()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await edge.stub.Revoke(pb.RevokeRequest(id=ID))
        assert refusal_of(caught.value).facts == {"permission": "revoke"}


STRANGERS = [
    ("spiffe://test/publisher/",),
    ("spiffe://test/Publisher",),
    ("spiffe://test/publisher2",),
    ("dns:sub.publisher.test",),
    ("dns:*.test",),
    ("ip:10.0.0.1",),
    ("dns:spiffe://test/publisher",),
]


@pytest.mark.parametrize("sans", STRANGERS)
async def test_another_name_is_nobodys(tmp_path: Path, sans: tuple[str, ...]) -> None:
    async with called_with(tmp_path, *sans) as edge:
        assert (await refusal(edge, ())).reason == "CALLER_UNKNOWN"


async def test_a_uri_that_is_spelt_like_a_host_and_a_common_name_are_nobodys(tmp_path: Path) -> None:
    async with called_with(tmp_path, "dns://publisher.test", "publisher.test:", name="spiffe://test/publisher") as edge:
        assert (await refusal(edge, ())).reason == "CALLER_UNKNOWN"


async def test_a_certificate_of_nobody_needs_a_key(tmp_path: Path) -> None:
    async with called_with(tmp_path, "dns:host.test") as edge:
        await edge.stub.GetAccount(GET, metadata=bearer("full-key"))
        [(_, caller, _)] = edge.use_cases.calls
        assert caller is CALLERS["full-key"]


async def test_a_key_and_a_certificate_of_two_callers_are_neither(tmp_path: Path) -> None:
    async with called_with(tmp_path, "spiffe://test/publisher") as edge:
        stolen = await refusal(edge, bearer("full-key"))
        assert (stolen.code, stolen.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN")
        assert (await refusal(edge, bearer("nobody"))).reason == "CALLER_UNKNOWN"


async def test_a_key_and_a_certificate_of_one_caller_are_that_one(tmp_path: Path) -> None:
    async with called_with(tmp_path, "spiffe://test/full") as edge:
        await edge.stub.GetAccount(GET, metadata=bearer("full-key"))
        assert len(edge.use_cases.calls) == 1


async def test_a_certificate_that_names_two_callers_is_neither(tmp_path: Path) -> None:
    async with called_with(tmp_path, "spiffe://test/publisher", "spiffe://test/full") as edge:
        assert "several callers" in (await refusal(edge, ())).text


@pytest.mark.parametrize("header", ["x-forwarded-client-cert", "x-spiffe-id", "x-caller", "x-owner", "x-forwarded-for"])
async def test_what_metadata_says_about_the_caller_has_no_effect(tmp_path: Path, header: str) -> None:
    async with called_with(tmp_path, "dns:host.test") as edge:
        assert (await refusal(edge, ((header, "spiffe://test/publisher"),))).reason == "CALLER_UNKNOWN"
