"""The edge under test: the real server on a port of the system's choice, over use cases that do as they are told."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from synposter.accounts.v1 import account_service_pb2_grpc, operations_service_pb2_grpc, platform_service_pb2_grpc

from server.accounts.blocks import Blocks
from server.accounts.callers import Caller, Permission
from server.accounts.calls import ApiAnswer, ApiCall
from server.accounts.changes import Mark
from server.accounts.events import EventFilter, EventPage, Refusal
from server.accounts.explain import Story
from server.accounts.flow import Begun
from server.accounts.model import Account, Block, ErasedAccount, Page, PlatformRevocation, Receipt, Status, StatusReason
from server.accounts.news import Listing, WatchPlace
from server.accounts.refusals import Refusals
from server.rpc.account_service import AccountService
from server.rpc.certificates import Certificates
from server.rpc.credentials import Credentials
from server.rpc.operations_service import OperationsService
from server.rpc.page_tokens import PageTokens
from server.rpc.platform_service import PlatformService
from server.rpc.policy import LINES, Line, Policy
from server.rpc.resume_tokens import ResumeTokens
from server.rpc.server import GrpcServer

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
MOMENT = datetime(2026, 7, 1, 12, 30, 15, 123457, tzinfo=UTC)


def make_account(**changes: Any) -> Account:
    account = Account(
        id=ID,
        profile_id="acme:ada",
        platform="twitter",
        platform_user_id="2244994945",
        grant_id="01890a5d-ac96-774b-bcce-b302099a8058",
        handle="ada",
        display_name="Ada Lovelace",
        avatar_url="https://example.com/ada.jpg",
        scopes=("tweet.read", "users.read"),
        missing_scopes=("tweet.write",),
        status=Status.ACTIVE,
        status_reason=StatusReason.NONE,
        status_time=MOMENT,
        platform_revocation=PlatformRevocation.NONE,
        create_time=MOMENT - timedelta(days=3),
        update_time=MOMENT - timedelta(days=2),
        access_token_expire_time=MOMENT + timedelta(hours=2),
        last_refresh_time=MOMENT - timedelta(hours=1),
    )
    return account._replace(**changes)


class UseCases:
    """Connector, reader and revoker in one: answers what `answers` holds for the name, raises it if it is an error."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Caller, dict[str, Any]]] = []
        self.blocked: tuple[Block, ...] = ()
        self.refusals: list[Refusal] = []
        self.refused_calls: list[tuple[str, str]] = []
        self.answers: dict[str, Any] = {
            "begin": Begun("connect-1", "https://x.example/authorize?state=s", MOMENT),
            "complete": (make_account(),),
            "get": make_account(),
            "list": Page((make_account(),), more=False),
            "watch": (Listing((make_account(),), WatchPlace(Mark(7, ID))),),
            "refresh": (make_account(), True),
            "explain": Story(make_account(), None, (), "it is refreshed", MOMENT, ""),
            "page": EventPage((), more=False),
            "call": ApiAnswer(200, (), b"{}"),
            "usage": EventPage((), more=False),
            "delete_profile": Receipt(
                ID, MOMENT, (ErasedAccount(ID, "twitter", PlatformRevocation.CONFIRMED, MOMENT, MOMENT),)
            ),
            "revoke": make_account(
                status=Status.REVOKED,
                status_reason=StatusReason.REVOKED_BY_CALLER,
                platform_revocation=PlatformRevocation.PENDING,
            ),
        }

    async def begin(self, caller: Caller, **given: Any) -> Any:
        return await self._answer("begin", caller, given)

    async def complete(self, caller: Caller, **given: Any) -> Any:
        return await self._answer("complete", caller, given)

    async def get(self, caller: Caller, account_id: str) -> Any:
        return await self._answer("get", caller, {"account_id": account_id})

    async def list(self, caller: Caller, **given: Any) -> Any:
        return await self._answer("list", caller, given)

    async def watch(self, caller: Caller, **given: Any) -> Any:
        for news in await self._answer("watch", caller, given):
            yield news

    async def refresh(self, caller: Caller, account_id: str, min_remaining_lifetime: timedelta | None) -> Any:
        given = {"account_id": account_id, "min_remaining_lifetime": min_remaining_lifetime}
        return await self._answer("refresh", caller, given)

    async def explain(self, caller: Caller, account_id: str) -> Any:
        return await self._answer("explain", caller, {"account_id": account_id})

    async def delete_profile(self, caller: Caller, profile_id: str) -> Any:
        return await self._answer("delete_profile", caller, {"profile_id": profile_id})

    async def page(self, caller: Caller, which: EventFilter, **given: Any) -> Any:
        return await self._answer("page", caller, {"which": which, **given})

    async def call(self, caller: Caller, call: ApiCall, left: float | None) -> Any:
        return await self._answer("call", caller, {"call": call, "left": left})

    async def usage(self, caller: Caller, which: EventFilter, **given: Any) -> Any:
        return await self._answer("usage", caller, {"which": which, **given})

    async def revoke(self, caller: Caller, account_id: str) -> Any:
        return await self._answer("revoke", caller, {"account_id": account_id})

    async def blocks(self) -> tuple[Block, ...]:
        return self.blocked

    async def record_refusals(self, refusals: Sequence[Refusal]) -> None:
        self.refusals += refusals

    def refused(self, method: str, reason: str) -> None:
        self.refused_calls.append((method, reason))

    async def _answer(self, name: str, caller: Caller, given: dict[str, Any]) -> Any:
        self.calls.append((name, caller, given))
        answer = self.answers[name]
        if isinstance(answer, BaseException):
            raise answer
        return await answer() if callable(answer) else answer


CALLERS = {
    "full-key": Caller("full", permissions=frozenset(Permission)),
    "other-key": Caller("other", permissions=frozenset(Permission)),
    "powerless-key": Caller("powerless"),
    **{f"all-but-{p}-key": Caller(f"all-but-{p}", permissions=frozenset(Permission) - {p}) for p in Permission},
}


class Ping:
    """The store's ping, which fails when told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1
        if self.error:
            raise self.error


class Edge:
    """A running server and a channel to it."""

    def __init__(
        self,
        lines: Mapping[str, Line] = LINES,
        reflection: bool = True,
        by_key: Mapping[str, Caller] = CALLERS,
        by_san: Mapping[str, Caller] | None = None,
    ) -> None:
        self.use_cases: Any = UseCases()
        self.ping = Ping()
        cases = self.use_cases
        tokens = PageTokens(b"k" * 32)
        service = AccountService(cases, cases, cases, cases, cases, tokens, cases, ResumeTokens(b"k" * 32))
        by_hash = {sha256(key.encode()).digest(): caller for key, caller in by_key.items()}
        self.blocks = Blocks(cases)
        self.now = 0.0
        self.refusals = Refusals(cases, cases, lambda: self.now)
        policy = Policy(Credentials(by_hash, by_san), self.blocks, self.refusals, lines, clock=lambda: self.now)
        operations = OperationsService(cases, cases, tokens)
        acting = PlatformService(cases, cases, tokens)
        self.server = GrpcServer(service, acting, operations, policy, ping=self.ping, reflection=reflection)

    async def start(
        self, certificates: Certificates | None = None, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        """In clear; or over TLS with the server's certificates and the channel's credentials."""
        self.address = f"127.0.0.1:{await self.server.start('127.0.0.1:0', certificates)}"
        self.channel = grpc.aio.insecure_channel(self.address)
        if credentials is not None:
            self.channel = grpc.aio.secure_channel(self.address, credentials)
        self.stub: Any = account_service_pb2_grpc.AccountServiceStub(self.channel)
        operations: Any = operations_service_pb2_grpc.OperationsServiceStub(self.channel)
        acting: Any = platform_service_pb2_grpc.PlatformServiceStub(self.channel)
        self.stub.Call, self.stub.ListUsage = acting.Call, acting.ListUsage
        self.stub.ExplainAccount, self.stub.ListAuditEvents = operations.ExplainAccount, operations.ListAuditEvents

    async def stop(self) -> None:
        await self.channel.close()
        await self.server.stop(timedelta(0))

    async def call(self, method: str, request: Any, key: str = "full-key", timeout: float = 10) -> Any:  # noqa: ASYNC109
        return await self.answer(method, request, bearer(key), timeout)

    async def answer(self, method: str, request: Any, metadata: Any, timeout: float = 10) -> Any:  # noqa: ASYNC109
        """The response; of a stream the first one."""
        call = getattr(self.stub, method)(request, metadata=metadata, timeout=timeout)
        if not isinstance(call, grpc.aio.UnaryStreamCall):
            return await call
        first = await call.read()
        call.cancel()
        return first

    async def refusal(self, method: str, request: Any, key: str = "full-key") -> Any:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, request, key)
        return refusal_of(caught.value)


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


def refusal_of(error: grpc.aio.AioRpcError) -> SimpleNamespace:
    """What a refused caller gets: code, text, and the details by their kind."""
    trailers = dict(error.trailing_metadata())
    status = RpcStatus.FromString(trailers["grpc-status-details-bin"])
    found = SimpleNamespace(code=error.code(), text=error.details(), raw=repr(trailers), status=status)
    found.violations, found.retry_after = [], None
    for detail in status.details:
        info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
        if detail.Unpack(info):
            found.reason, found.domain, found.facts = info.reason, info.domain, dict(info.metadata)
        if detail.Unpack(bad):
            found.violations = [(violation.field, violation.description) for violation in bad.field_violations]
        if detail.Unpack(retry):
            found.retry_after = retry.retry_delay.ToTimedelta()
    return found


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = Edge()
    await edge.start()
    yield edge
    await edge.stop()


@pytest.fixture
def tools() -> SimpleNamespace:
    """What tests need besides a running edge."""
    return SimpleNamespace(
        ID=ID, MOMENT=MOMENT, Edge=Edge, account=make_account, bearer=bearer, refusal_of=refusal_of, callers=CALLERS
    )
