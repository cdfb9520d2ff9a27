"""What is refused names what is wrong, is audited and changes nothing; and nobody can flood the audit (E2, E3, E7)."""

import hashlib
import json
import logging
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1 import account_service_pb2_grpc, operations_service_pb2_grpc
from synposter.accounts.v1.operations_service_pb2 import ExplainAccountRequest, ListAuditEventsRequest
from synposter.accounts.v1.platform_service_pb2 import CallRequest, ListUsageRequest

from server.accounts.callers import Caller, Limits, Permission
from server.accounts.errors import StoreUnavailable
from server.accounts.events import EventFilter
from server.parts import open_engine
from server.rpc.policy import LINES
from server.rpc.server import ACCOUNTS, OPERATIONS, PLATFORMS
from tests.e2e.conftest import PROFILE, Whole, whole_service
from tests.moulds import cast_postgres
from tests.rpc.conftest import ID, Edge, bearer, refusal_of

FOREIGN = "other/1"
RESTRICTED = """
[callers.restricted]
api_keys_sha256 = ["{restricted}"]
permissions = ["connect", "read", "refresh", "revoke", "delete", "act", "operate"]
profiles = ["mine/"]
platforms = ["twitter"]
return_urls = ["{url}"]
routes = ["twitter GET /2/users/{{id}}"]

[callers.powerless]
api_keys_sha256 = ["{powerless}"]
permissions = []
profiles = ["*"]
platforms = ["*"]
revokes_a_minute = 1

[callers.blocked]
api_keys_sha256 = ["{blocked}"]
permissions = ["read"]
profiles = ["*"]
platforms = ["*"]
"""


def callers(url: str) -> str:
    names = ("restricted", "powerless", "blocked")
    return RESTRICTED.format(url=url, **{name: hashlib.sha256(name.encode()).hexdigest() for name in names})


@pytest.fixture(params=["sqlite", "postgres"])
async def whole(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Whole]:
    """The service on each kind of store, with callers that may do less than everything."""
    url = cast_postgres(request.getfixturevalue("postgres")) if request.param == "postgres" else None
    more = callers("https://mine.test/done")
    async with whole_service(tmp_path / "deployment", url, more) as service:
        yield service


async def refusal(whole: Whole, method: str, request: Any, key: str) -> Any:
    async with grpc.aio.insecure_channel(whole.local.target) as channel:
        stub = account_service_pb2_grpc.AccountServiceStub(channel)  # type: ignore[no-untyped-call]
        operations = operations_service_pb2_grpc.OperationsServiceStub(channel)  # type: ignore[no-untyped-call]
        call = getattr(stub, method, None) or getattr(operations, method)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request, metadata=(*bearer(key), ("x-request-id", f"try-{method}")), timeout=10)
    return refusal_of(caught.value)


def everything(whole: Whole) -> dict[str, list[Any]]:
    """All rows that are no audit."""
    tables = ("accounts", "grants", "authorization_requests", "revocations", "erasures", "erased_accounts")
    run = whole.app.engine.database.execute_sql
    return {table: sorted(map(repr, run(f"SELECT * FROM {table}").fetchall())) for table in tables}


def begin(**changed: Any) -> pb.BeginConnectRequest:
    given = {"profile_id": "mine/1", "platform": "twitter", "return_url": "https://mine.test/done", **changed}
    return pb.BeginConnectRequest(**given)


async def test_each_refusal_names_what_is_wrong_and_is_audited_and_changes_nothing(whole: Whole) -> None:
    account = await whole.connect()
    delete = pb.DeleteProfileRequest(profile_id=PROFILE)
    get, revoke = pb.GetAccountRequest(id=account.id), pb.RevokeRequest(id=account.id)
    await whole.app.store.set_block("blocked", reason="stolen", operator="ada")
    await whole.app.blocks.follow()
    denied, missing, wrong = "CALLER_NOT_PERMITTED", "ACCOUNT_NOT_FOUND", "INVALID_FIELD"
    attempts = [
        ("GetAccount", get, "powerless", denied, {"permission": "read"}, account.id),
        ("Revoke", revoke, "powerless", denied, {"permission": "revoke"}, account.id),
        ("DeleteProfile", delete, "powerless", denied, {"permission": "delete"}, ""),
        ("GetAccount", get, "blocked", denied, {"blocked": "blocked"}, account.id),
        ("GetAccount", get, "restricted", missing, {}, account.id),
        ("Revoke", revoke, "restricted", missing, {}, account.id),
        ("RefreshAccount", pb.RefreshAccountRequest(id=account.id), "restricted", missing, {}, account.id),
        ("ExplainAccount", ExplainAccountRequest(id=account.id), "restricted", missing, {}, account.id),
        ("DeleteProfile", delete, "restricted", denied, {"field": "profile_id"}, ""),
        ("BeginConnect", begin(profile_id=FOREIGN), "restricted", denied, {"field": "profile_id"}, ""),
        ("BeginConnect", begin(platform="linkedin"), "restricted", denied, {"field": "platform"}, ""),
        ("BeginConnect", begin(return_url="https://evil.test/"), "restricted", wrong, {"field": "return_url"}, ""),
        ("BeginConnect", begin(scopes=["no.such.scope"]), "restricted", wrong, {"field": "scopes"}, ""),
        ("BeginConnect", begin(platform="myspace"), "restricted", "UNKNOWN_PLATFORM", {}, ""),
        ("ListAccounts", pb.ListAccountsRequest(), "restricted", denied, {"permission": "list_all"}, ""),
        ("ListAccounts", pb.ListAccountsRequest(profile_id="mine/1", page_token="x"), "restricted", wrong,
         {"field": "page_token"}, ""),
        ("GetAccount", pb.GetAccountRequest(id="'; DROP TABLE accounts"), "restricted", wrong, {"field": "id"}, ""),
        ("CompleteConnect", pb.CompleteConnectRequest(profile_id="mine/1", completion_code="guessed"), "restricted",
         "CONNECT_NOT_FOUND", {}, ""),
    ]  # fmt: skip
    before = everything(whole)
    for method, request, key, reason, facts, _ in attempts:
        refused = await refusal(whole, method, request, key)
        assert refused.reason == reason, method
        assert facts.items() <= refused.facts.items()
        if reason == wrong:
            assert [field for field, _ in refused.violations] == [facts["field"]]
    assert everything(whole) == before
    assert await whole.app.refusals.work_off() == len(attempts)
    page = await whole.app.store.list_events(EventFilter(kind="call_refused"), after="", size=99)
    told = [
        (event.facts["method"], event.caller, event.result, event.facts, event.account_id or "", event.request_id)
        for event in reversed(page.events)
    ]
    assert told == [
        (method, caller, reason, {"method": method, "count": 1, **facts}, named, f"try-{method}")
        for method, _, caller, reason, facts, named in attempts
    ]
    assert all(event.peer.startswith("ipv4:127.0.0.1:") for event in page.events)
    assert PROFILE not in repr(page.events) and FOREIGN not in repr(page.events)


async def test_a_foreign_account_is_answered_as_a_missing_one_byte_for_byte(whole: Whole) -> None:
    foreign = (await whole.connect()).id
    placeholder = "x" * len(ID)

    def asked(account_id: str) -> list[tuple[str, str, Any]]:
        return [
            (ACCOUNTS, "GetAccount", pb.GetAccountRequest(id=account_id)),
            (ACCOUNTS, "RefreshAccount", pb.RefreshAccountRequest(id=account_id)),
            (ACCOUNTS, "Revoke", pb.RevokeRequest(id=account_id)),
            (ACCOUNTS, "BeginConnect", begin(account_id=account_id)),
            (PLATFORMS, "Call", CallRequest(account_id=account_id, method="GET", path="/2/users/me")),
            (PLATFORMS, "ListUsage", ListUsageRequest(account_id=account_id)),
            (OPERATIONS, "ExplainAccount", ExplainAccountRequest(id=account_id)),
        ]

    async with grpc.aio.insecure_channel(whole.local.target) as channel:

        async def answered(account_id: str) -> list[str]:
            told = []
            for service, method, request in asked(account_id):
                call = channel.unary_unary(f"/{service.full_name}/{method}")(
                    request.SerializeToString(), metadata=bearer("restricted"), timeout=10
                )
                assert await call.code() is grpc.StatusCode.NOT_FOUND, method
                said = (await call.initial_metadata(), await call.trailing_metadata(), await call.details())
                told.append(f"{method} {said}".replace(account_id, placeholder))
            return told

        assert await answered(foreign) == await answered(ID)


async def test_operators_who_see_all_profiles_list_refusals_and_the_story_of_an_account_has_none(whole: Whole) -> None:
    account = await whole.connect()
    await refusal(whole, "GetAccount", pb.GetAccountRequest(id=account.id), "powerless")
    await whole.app.refusals.work_off()
    await whole.app.linker.work_off()
    async with grpc.aio.insecure_channel(whole.local.target) as channel:
        stub = operations_service_pb2_grpc.OperationsServiceStub(channel)  # type: ignore[no-untyped-call]
        asked = ListAuditEventsRequest(account_id=account.id, kind="call_refused")
        [event] = (await stub.ListAuditEvents(asked, metadata=bearer(whole.local.api_key))).events
        assert (event.caller, event.result, event.chain_position > 0) == ("powerless", "CALLER_NOT_PERMITTED", True)
        assert dict(event.facts) == {"method": "GetAccount", "permission": "read", "count": "1"}
        assert not (await stub.ListAuditEvents(asked, metadata=bearer("restricted"))).events
        story = await stub.ExplainAccount(ExplainAccountRequest(id=account.id), metadata=bearer(whole.local.api_key))
        assert [each.kind for each in story.events] == ["connected"]


async def test_a_connect_that_another_caller_tries_to_complete_is_audited_with_who_tried(whole: Whole) -> None:
    back = await whole.come_back()
    request = pb.CompleteConnectRequest(profile_id=PROFILE, completion_code=back["completion_code"])
    assert (await refusal(whole, "CompleteConnect", request, "restricted")).reason == "CONNECT_MISMATCH"
    await whole.app.refusals.work_off()
    page = await whole.app.store.list_events(EventFilter(), after="", size=2)
    assert {(event.kind, event.caller, event.result) for event in page.events} == {
        ("call_refused", "restricted", "CONNECT_MISMATCH"), ("connect_failed", "local", "CONNECT_MISMATCH"),
    }  # fmt: skip


async def test_what_is_still_counted_is_recorded_when_the_server_stops(tmp_path: Path) -> None:
    async with whole_service(tmp_path / "deployment", None, callers("https://mine.test/done")) as whole:
        get = pb.GetAccountRequest(id=ID)
        await refusal(whole, "GetAccount", get, "powerless")
        await whole.app.refusals.work_off()
        await refusal(whole, "GetAccount", get, "powerless")
        assert await whole.app.refusals.work_off() == 0
    engine = open_engine(whole.app.settings)
    found = engine.database.execute_sql("SELECT facts FROM events WHERE kind = 'call_refused'").fetchall()
    engine.close()
    assert [json.loads(facts)["count"] for (facts,) in found] == [1, 1]


# --- floods


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = Edge()
    await edge.start()
    yield edge
    await edge.stop()


def unknown() -> pb.GetAccountRequest:
    return pb.GetAccountRequest(id=str(uuid.uuid4()))


async def test_a_flood_of_refusals_is_one_event_at_once_and_then_one_a_minute_that_counts_them(edge: Edge) -> None:
    flood = 500
    for minute in range(3):
        for number in range(flood):
            await edge.refusal("Revoke", pb.RevokeRequest(id=str(uuid.uuid4())), key="powerless-key")
            if number % 10 == 0:
                edge.now += 60 / flood * 10
                await edge.refusals.work_off()
        assert len(edge.use_cases.refusals) <= minute + 2
    edge.now += 60
    await edge.refusals.work_off()
    assert sum(each.count for each in edge.use_cases.refusals) == 3 * flood, "none is forgotten"
    assert edge.use_cases.refused_calls == [("Revoke", "caller_not_permitted")] * 3 * flood


async def test_nothing_that_is_sent_makes_more_events_than_there_are_kinds_of_refusal(edge: Edge) -> None:
    for number in range(300):
        text = f"{number}" * 50
        await edge.refusal("GetAccount", pb.GetAccountRequest(id=text))
        await edge.refusal("ListAccounts", pb.ListAccountsRequest(profile_id=f" {text}"))
        await edge.refusal("BeginConnect", pb.BeginConnectRequest(profile_id="p", platform="twitter", scopes=[" "]))
        edge.use_cases.answers["list"] = StoreUnavailable("away")
        await edge.refusal("ListAccounts", pb.ListAccountsRequest(profile_id=text))
    assert await edge.refusals.work_off() == 3
    assert {each.account_id for each in edge.use_cases.refusals} == {None}, "what is no id is not kept"


async def test_calls_without_a_credential_are_counted_and_logged_once_a_minute_and_never_written(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for _ in range(100):
                await edge.refusal("GetAccount", unknown(), key=f"Bearer {uuid.uuid4()}")
                await edge.refusals.work_off()
            edge.now += 61
        await edge.refusals.work_off()
    lines = [record for record in caplog.records if "credential" in record.getMessage()]
    assert [vars(record)["count"] for record in lines] == [1, 100, 100, 99]
    assert edge.use_cases.refusals == []
    assert edge.use_cases.refused_calls == [("GetAccount", "caller_unknown")] * 300


async def test_refusals_wait_for_a_database_that_is_away_and_none_is_forgotten(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: object) -> None:
        await edge.refusal("Revoke", pb.RevokeRequest(id=ID), key="powerless-key")
        raise StoreUnavailable("away")

    with monkeypatch.context() as database:
        database.setattr(edge.use_cases, "record_refusals", away)
        await edge.refusal("Revoke", pb.RevokeRequest(id=ID), key="powerless-key")
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await edge.refusals.work_off()
    assert await edge.refusals.work_off() == 1
    assert [each.count for each in edge.use_cases.refusals] == [3]


async def test_a_caller_over_its_limits_is_audited_with_the_limit_and_the_account() -> None:
    thief = Caller("thief", frozenset(Permission), limits=Limits(accounts_a_minute=10, revokes_a_minute=2))
    harvested = Edge(by_key={"stolen-key": thief})
    await harvested.start()
    for _ in range(2):
        await harvested.call("Revoke", pb.RevokeRequest(id=ID), key="stolen-key")
    await harvested.refusal("Revoke", pb.RevokeRequest(id=ID), key="stolen-key")
    for _ in range(9):
        await harvested.call("GetAccount", unknown(), key="stolen-key")
    last = unknown()
    for _ in range(3):
        await harvested.refusal("GetAccount", last, key="stolen-key")
    await harvested.refusals.work_off()
    await harvested.stop()
    assert [(e.caller, e.method, e.facts, e.account_id, e.count) for e in harvested.use_cases.refusals] == [
        ("thief", "Revoke", {"limit": "revokes_a_minute"}, ID, 1),
        ("thief", "GetAccount", {"limit": "accounts_a_minute"}, last.id, 3),
    ]


async def test_what_is_nobodys_fault_is_no_refusal(edge: Edge) -> None:
    for error in (StoreUnavailable("away"), RuntimeError("a bug")):
        edge.use_cases.answers["get"] = error
        await edge.refusal("GetAccount", unknown())
    await edge.call("ListAccounts", pb.ListAccountsRequest(profile_id="p"))
    assert await edge.refusals.work_off() == 0


async def test_every_method_with_a_policy_line_audits_what_it_refuses(edge: Edge) -> None:
    methods = [name.rpartition(".")[2] for name in LINES if name.startswith("synposter.")]
    for method in methods:
        call = edge.channel.unary_unary(
            next(f"/{name.rpartition('.')[0]}/{method}" for name in LINES if method in name)
        )
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"\xff\xff", metadata=bearer("full-key"), timeout=10)
    await edge.refusals.work_off()
    assert [(each.method, each.reason, each.facts) for each in edge.use_cases.refusals] == [
        (method, "INVALID_FIELD", {"field": "request"}) for method in methods
    ]
