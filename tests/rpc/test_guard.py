"""Who is let in, and that no method is served that nobody decided about."""

from hashlib import sha256

import grpc.aio
import pytest
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1.operations_service_pb2 import ExplainAccountRequest, ListAuditEventsRequest
from synposter.accounts.v1.platform_service_pb2 import CallRequest, ListUsageRequest

from server.accounts.callers import Permission
from server.rpc.policy import LINES, MethodWithoutPolicy
from server.rpc.server import ACCOUNTS, HEALTH, OPERATIONS, PLATFORMS, REFLECTION

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
REQUESTS = {
    "BeginConnect": pb.BeginConnectRequest(profile_id="acme:ada", platform="twitter"),
    "CompleteConnect": pb.CompleteConnectRequest(profile_id="acme:ada", completion_code="code"),
    "GetAccount": pb.GetAccountRequest(id=ID),
    "ListAccounts": pb.ListAccountsRequest(profile_id="acme:ada"),
    "WatchAccounts": pb.WatchAccountsRequest(profile_id="acme:ada"),
    "RefreshAccount": pb.RefreshAccountRequest(id=ID),
    "Revoke": pb.RevokeRequest(id=ID),
    "DeleteProfile": pb.DeleteProfileRequest(profile_id="acme:ada"),
    "Call": CallRequest(account_id=ID, method="GET", path="/2/users/me"),
    "ListUsage": ListUsageRequest(account_id=ID),
    "ExplainAccount": ExplainAccountRequest(id=ID),
    "ListAuditEvents": ListAuditEventsRequest(),
}
PROMISED = {
    "BeginConnect": Permission.CONNECT,
    "CompleteConnect": Permission.CONNECT,
    "GetAccount": Permission.READ,
    "ListAccounts": Permission.READ,
    "WatchAccounts": Permission.READ,
    "RefreshAccount": Permission.REFRESH,
    "Revoke": Permission.REVOKE,
    "DeleteProfile": Permission.DELETE,
    "Call": Permission.ACT,
    "ListUsage": Permission.READ,
    "ExplainAccount": Permission.OPERATE,
    "ListAuditEvents": Permission.OPERATE,
}
STRANGERS = {
    "no credential": (),
    "an unknown key": (("authorization", "Bearer nobody"),),
    "no scheme": (("authorization", "full-key"),),
    "another scheme": (("authorization", "Basic full-key"),),
    "the scheme alone": (("authorization", "Bearer"),),
    "an empty key": (("authorization", "Bearer "),),
    "two spaces": (("authorization", "Bearer  full-key"),),
    "a key with more behind it": (("authorization", "Bearer full-key, Bearer full-key"),),
    "the hash of a key": (("authorization", f"Bearer {sha256(b'full-key').hexdigest()}"),),
    "another header": (("x-api-key", "full-key"),),
}


def test_the_requests_here_are_all_of_the_service() -> None:
    assert set(REQUESTS) == set(PROMISED) == {
        *ACCOUNTS.methods_by_name, *PLATFORMS.methods_by_name, *OPERATIONS.methods_by_name
    }  # fmt: skip


@pytest.mark.parametrize("method", REQUESTS)
async def test_a_caller_with_the_permission_is_let_in(edge, tools, method) -> None:
    await edge.call(method, REQUESTS[method])
    ((_, caller, _),) = edge.use_cases.calls
    assert caller is tools.callers["full-key"]


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize("stranger", STRANGERS)
async def test_a_stranger_is_let_in_nowhere(edge, tools, method, stranger) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await edge.answer(method, REQUESTS[method], STRANGERS[stranger])
    refusal = tools.refusal_of(caught.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN")
    assert "full-key" not in refusal.raw + refusal.text
    assert edge.use_cases.calls == []


@pytest.mark.parametrize("method", REQUESTS)
async def test_a_caller_without_the_permission_is_told_which_it_lacks(edge, method) -> None:
    needed = PROMISED[method]
    for key in (f"all-but-{needed}-key", "powerless-key"):
        refusal = await edge.refusal(method, REQUESTS[method], key=key)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_PERMITTED")
        assert refusal.facts == {"permission": needed.value}
    assert edge.use_cases.calls == []


async def test_the_scheme_ignores_case(edge) -> None:
    await edge.stub.GetAccount(REQUESTS["GetAccount"], metadata=(("authorization", "bearer full-key"),))
    assert len(edge.use_cases.calls) == 1


async def test_a_strangers_request_is_not_even_parsed(edge, tools) -> None:
    get_account = edge.channel.unary_unary("/synposter.accounts.v1.AccountService/GetAccount")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await get_account(b"\xff\xff\xff", metadata=tools.bearer("nobody"))
    assert tools.refusal_of(caught.value).reason == "CALLER_UNKNOWN"


@pytest.mark.parametrize("method", [name for name in LINES if not name.startswith("grpc.reflection")])
def test_a_method_without_a_policy_line_stops_the_start(tools, method) -> None:
    lines = {name: line for name, line in LINES.items() if name != method}
    with pytest.raises(MethodWithoutPolicy, match=method):
        tools.Edge(lines=lines)


def test_each_policy_line_is_of_a_method_that_is_served() -> None:
    services = (ACCOUNTS, PLATFORMS, OPERATIONS, HEALTH, REFLECTION)
    served = {method.full_name for service in services for method in service.methods}
    assert set(LINES) == served
