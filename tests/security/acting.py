"""A real service whose platform's API is a raw peer: tests see each byte that is sent on an account's behalf."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from prometheus_client import generate_latest
from synposter.accounts.v1 import platform_service_pb2 as pb
from synposter.accounts.v1 import platform_service_pb2_grpc
from synposter_accounts import Account

from server.parts import DEFINITIONS
from server.platforms.definition import needs
from server.platforms.twitter import TWITTER
from tests.e2e.conftest import Whole, whole_service
from tests.platforms.peer import Answer, Peer, http, peer, says
from tests.rpc.conftest import bearer, refusal_of

OK = says(http(b'{"data":{}}'))
REFUSED = http(b"{}", "401 Unauthorized")
ROUTES = [
    "twitter POST /2/tweets",
    "twitter GET /2/users/{id}",
    "linkedin GET /v2/userinfo",
    *(f"twitter {method} /2/tweets/{{id}}" for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE")),
]
# X itself mends nothing in place; each method that changes something is to be tried.
MENDING = needs("tweet.write", routes=["PUT /2/tweets/{id}", "PATCH /2/tweets/{id}"])
WITH_MORE_METHODS = replace(TWITTER, api=replace(TWITTER.api, scopes=(*TWITTER.api.scopes, *MENDING)))
BIG = [("grpc.max_receive_message_length", 9 * 1024 * 1024), ("grpc.max_send_message_length", 9 * 1024 * 1024)]


class Script:
    """One answer after the other; the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        await (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(writer)


def request(method: str) -> dict[str, Any]:
    path = "/2/tweets" if method == "POST" else "/2/tweets/1"
    body = {} if method in ("GET", "HEAD", "DELETE") else {"body": b"{}", "content_type": "application/json"}
    return {"method": method, "path": path, **body}


@dataclass
class Acting:
    """The service, an account of it, and the peer that plays its platform's API."""

    whole: Whole
    peer: Peer
    account: Account
    stub: Any

    async def call(self, *, timeout: float = 20.0, limit: int = 30, **request: Any) -> pb.CallResponse:  # noqa: ASYNC109
        """A GET of /2/users/me, but for what is given; `timeout` is gRPC's, and `limit` that of the request."""
        wanted = {"account_id": self.account.id, "method": "GET", "path": "/2/users/me", **request}
        wanted["timeout"] = Duration(seconds=limit)
        key = bearer(self.whole.local.api_key)
        response: pb.CallResponse = await self.stub.Call(pb.CallRequest(**wanted), metadata=key, timeout=timeout)
        return response

    async def post(self, text: bytes = b'{"text":"hello"}', **request: Any) -> pb.CallResponse:
        wanted = {"method": "POST", "path": "/2/tweets", "content_type": "application/json", "body": text, **request}
        return await self.call(**wanted)

    async def refusal(self, **request: Any) -> SimpleNamespace:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(**request)
        return refusal_of(caught.value)

    async def usage(self, **request: Any) -> list[pb.Usage]:
        wanted = pb.ListUsageRequest(**(request or {"account_id": self.account.id}))
        response = await self.stub.ListUsage(wanted, metadata=bearer(self.whole.local.api_key))
        return list(response.usages)

    def metrics(self) -> str:
        return generate_latest(self.whole.app.metrics.registry).decode()

    async def token(self) -> str:
        """The access token that the service holds now."""
        account = await self.whole.app.store.account(self.account.id)
        assert account is not None
        token_set = await self.whole.app.store.token_set(account.grant_id)
        assert token_set is not None
        return token_set.access_token.reveal()


@asynccontextmanager
async def acting(folder: Path, answer: Answer = OK, database_url: str | None = None) -> AsyncIterator[Acting]:
    async with peer(answer) as found:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("ACCOUNTS_PLATFORMS__TWITTER__API_BASE", found.url)
            environment.setenv("ACCOUNTS_CALLERS__LOCAL__ROUTES", json.dumps(ROUTES))
            environment.setitem(DEFINITIONS, "twitter", WITH_MORE_METHODS)
            async with (
                whole_service(folder / "deployment", database_url) as whole,
                grpc.aio.insecure_channel(whole.local.target, options=BIG) as channel,
            ):
                stub = platform_service_pb2_grpc.PlatformServiceStub(channel)  # type: ignore[no-untyped-call]
                yield Acting(whole, found, await whole.connect(), stub)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
