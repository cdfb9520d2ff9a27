"""WatchAccounts at the edge: what it passes on, the tokens it gives and takes, and how its streams end."""

import asyncio
import dataclasses
from typing import Any

import grpc.aio
import pytest
from synposter.accounts.v1 import account_service_pb2 as pb

from server.accounts.callers import Caller, Limits, Permission
from server.accounts.changes import Change, Mark
from server.accounts.errors import InvalidField, ResumeTokenTooOld
from server.accounts.events import EventKind
from server.accounts.model import StatusReason
from server.accounts.news import Heartbeat, Listing, WatchPlace
from server.rpc.resume_tokens import ResumeTokens, Watched
from server.rpc.watch import KINDS

READ = frozenset({Permission.READ})
ONE = Caller("one", permissions=READ)
PROFILE = Watched("acme:ada", None)
MARK = Mark(41, "01890a5d-ac96-774b-bcce-b302099a8051")


def change(tools: Any, **other: Any) -> Change:
    given = {
        "mark": MARK,
        "kind": EventKind.EXPIRED,
        "time": tools.MOMENT,
        "account_id": tools.ID,
        "platform": "twitter",
        "reason": StatusReason.REFRESH_REJECTED,
        "account": tools.account(),
    }
    return Change(**{**given, **other})


async def told(edge: Any, request: Any = None) -> list[Any]:
    call = edge.stub.WatchAccounts(request or pb.WatchAccountsRequest(profile_id="acme:ada"), metadata=bearer())
    return [response async for response in call]


def bearer(key: str = "full-key") -> Any:
    return (("authorization", f"Bearer {key}"),)


async def test_listings_changes_and_heartbeats_arrive_whole(edge: Any, tools: Any) -> None:
    gone = change(tools, kind=EventKind.ACCOUNT_ERASED, account=None, reason=StatusReason.NONE)
    news = (Listing((tools.account(),), WatchPlace(MARK, tools.ID)), Listing((), WatchPlace(MARK)), change(tools), gone)
    edge.use_cases.answers["watch"] = (*news, Heartbeat(MARK))
    first, last, expired, deleted, beat = await told(edge)
    assert [account.handle for account in first.listing.accounts] == ["ada"] and not first.listing.complete
    assert last.listing.complete and not last.listing.accounts
    assert (expired.change.kind, expired.change.status_reason) == (pb.ACCOUNT_CHANGE_KIND_EXPIRED, 1)
    assert expired.change.account.handle == "ada" and expired.change.account_id == tools.ID
    assert expired.change.change_time.ToDatetime().microsecond == tools.MOMENT.microsecond
    assert deleted.change.kind == pb.ACCOUNT_CHANGE_KIND_DELETED and not deleted.change.HasField("account")
    assert beat.WhichOneof("news") == "heartbeat"
    assert all(response.resume_token for response in (first, last, expired, deleted, beat))


async def test_each_token_resumes_where_it_was_given(edge: Any, tools: Any) -> None:
    places = [WatchPlace(MARK, tools.ID), WatchPlace(MARK), WatchPlace(Mark(0, ""))]
    edge.use_cases.answers["watch"] = tuple(Listing((), place) for place in places)
    for response, place in zip(await told(edge), places, strict=True):
        await told(edge, pb.WatchAccountsRequest(profile_id="acme:ada", resume_token=response.resume_token))
        assert edge.use_cases.calls[-1][2] == {"profile_id": "acme:ada", "platform": None, "place": place}


@pytest.mark.parametrize("request_, field", [
    (pb.WatchAccountsRequest(profile_id="acme ada"), "profile_id"),
    (pb.WatchAccountsRequest(profile_id="x" * 129), "profile_id"),
    (pb.WatchAccountsRequest(profile_id="acme:ada", resume_token="x"), "resume_token"),
    (pb.WatchAccountsRequest(profile_id="acme:ada", resume_token="x" * 300), "resume_token"),
    (pb.WatchAccountsRequest(profile_id="acme:ada", resume_token="é"), "resume_token"),
])  # fmt: skip
async def test_bad_input_is_named(edge: Any, request_: Any, field: str) -> None:
    refusal = await edge.refusal("WatchAccounts", request_)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation[0] for violation in refusal.violations] == [field]
    assert edge.use_cases.calls == []


async def test_what_cannot_be_told_any_more_is_out_of_range(edge: Any) -> None:
    edge.use_cases.answers["watch"] = ResumeTokenTooOld("gone")
    refusal = await edge.refusal("WatchAccounts", pb.WatchAccountsRequest(profile_id="acme:ada"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_TOO_OLD")


async def test_what_a_watcher_is_told_counts_as_accounts(tools: Any) -> None:
    limits = Limits(accounts_a_minute=3)
    edge = tools.Edge(by_key={"full-key": dataclasses.replace(tools.callers["full-key"], limits=limits)})
    await edge.start()
    pages = [
        Listing(tuple(tools.account(id=f"{page}{n}") for n in range(2)), WatchPlace(MARK, "x")) for page in range(3)
    ]
    edge.use_cases.answers["watch"] = pages
    call = edge.stub.WatchAccounts(pb.WatchAccountsRequest(profile_id="acme:ada"), metadata=bearer())
    assert len((await call.read()).listing.accounts) == len((await call.read()).listing.accounts) == 2
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    refusal = tools.refusal_of(caught.value)
    assert (refusal.reason, refusal.facts) == ("RATE_LIMITED", {"limit": "accounts_a_minute"})
    assert refusal.retry_after.total_seconds() == 60
    await edge.stop()


async def test_a_caller_that_goes_leaves_nothing_behind(edge: Any, tools: Any) -> None:
    ended = asyncio.Event()

    async def watch(*_: Any, **__: Any) -> Any:
        try:
            yield Heartbeat(MARK)
            await asyncio.Event().wait()
        finally:
            ended.set()

    edge.use_cases.watch = watch
    call = edge.stub.WatchAccounts(pb.WatchAccountsRequest(profile_id="acme:ada"), metadata=bearer())
    await call.read()
    call.cancel()
    await asyncio.wait_for(ended.wait(), 10)


# --- tokens


@pytest.mark.parametrize("caller, watched", [
    (Caller("two", permissions=READ), PROFILE),
    (ONE, Watched("acme:eve", None)),
    (ONE, Watched(None, None)),
    (ONE, Watched("acme:ada", "twitter")),
])  # fmt: skip
def test_a_token_is_good_for_its_caller_and_its_filter_alone(caller: Caller, watched: Watched) -> None:
    tokens = ResumeTokens(b"k" * 32)
    token = tokens.writer(ONE, PROFILE)(WatchPlace(MARK))
    assert tokens.read(ONE, PROFILE, token) == WatchPlace(MARK)
    with pytest.raises(InvalidField):
        tokens.read(caller, watched, token)
    with pytest.raises(InvalidField):
        ResumeTokens(b"l" * 32).read(ONE, PROFILE, token)


@pytest.mark.parametrize("now", [
    dataclasses.replace(ONE, profiles=("acme:",)),
    dataclasses.replace(ONE, platforms=frozenset({"twitter"})),
    dataclasses.replace(ONE, platforms=frozenset()),
])  # fmt: skip
def test_a_caller_that_may_see_other_accounts_than_then_lists_again(now: Caller) -> None:
    tokens = ResumeTokens(b"k" * 32)
    with pytest.raises(ResumeTokenTooOld):
        tokens.read(now, PROFILE, tokens.writer(ONE, PROFILE)(WatchPlace(MARK)))


def test_watchers_of_the_same_share_the_token_of_a_change() -> None:
    tokens = ResumeTokens(b"k" * 32)
    assert tokens.writer(ONE, PROFILE)(WatchPlace(MARK)) == tokens.writer(ONE, PROFILE)(WatchPlace(MARK))
    assert tokens.writer(ONE, PROFILE)(WatchPlace(MARK)) != tokens.writer(ONE, Watched(None, None))(WatchPlace(MARK))


def test_every_kind_that_is_told_has_its_name_in_the_proto() -> None:
    from server.accounts.changes import TOLD

    assert KINDS.keys() == TOLD
    assert set(KINDS.values()) == set(pb.AccountChangeKind.values()) - {0}
