"""ListAuditEvents at the edge, and what every event learns there: where the call came from."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1.operations_service_pb2 import ListAuditEventsRequest

from server.accounts.audit import NOWHERE, ORIGIN
from server.accounts.callers import Caller
from server.accounts.errors import InvalidField
from server.accounts.events import Event, EventFilter, EventPage
from server.rpc.page_tokens import Listing, PageTokens

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
NOON = datetime(2026, 7, 1, 12, 0, 0, 123457, tzinfo=UTC)
EVENT = Event(
    7, NOON, "revoked", "web", {"scopes": ["a", "b"], "attempt": 2}, ID, ID, "acme:ada", "twitter",
    "ipv4:10.0.0.7:4711", "request-1", "done", 12,
)  # fmt: skip


def timestamp(moment: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found


async def test_an_event_is_told_whole(edge: Any) -> None:
    edge.use_cases.answers["page"] = EventPage((EVENT,), more=False)
    [told] = (await edge.call("ListAuditEvents", ListAuditEventsRequest())).events
    assert (told.id, told.kind, told.caller, told.result, told.account_id) == (ID, "revoked", "web", "done", ID)
    assert (told.peer, told.request_id, told.profile_id, told.platform, told.chain_position) == (
        "ipv4:10.0.0.7:4711", "request-1", "acme:ada", "twitter", 12,
    )  # fmt: skip
    assert told.time.ToDatetime(UTC) == NOON
    assert dict(told.facts) == {"scopes": "a b", "attempt": "2"}


async def test_a_filter_reaches_the_use_case_as_it_was_given(edge: Any) -> None:
    request = ListAuditEventsRequest(
        account_id=ID.upper(), profile_id="acme:ada", caller="web", kind="revoked",
        start_time=timestamp(NOON), end_time=timestamp(NOON + timedelta(days=1)), page_size=7,
    )  # fmt: skip
    await edge.call("ListAuditEvents", request)
    [(_, _, given)] = edge.use_cases.calls
    assert given["which"] == EventFilter(ID, "acme:ada", "web", "revoked", NOON, NOON + timedelta(days=1))
    assert (given["size"], given["after"]) == (7, "")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"account_id": "x"}, "account_id"),
        ({"profile_id": "a b"}, "profile_id"),
        ({"caller": "x" * 129}, "caller"),
        ({"caller": "a\0"}, "caller"),
        ({"kind": "Revoked"}, "kind"),
        ({"start_time": Timestamp(seconds=1 << 60)}, "start_time"),
        ({"end_time": Timestamp(seconds=-(1 << 60))}, "end_time"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "forged"}, "page_token"),
    ],
)
async def test_a_field_that_is_wrong_is_named(edge: Any, wrong: dict[str, Any], field: str) -> None:
    refused = await edge.refusal("ListAuditEvents", ListAuditEventsRequest(**wrong))
    assert (refused.reason, refused.facts) == ("INVALID_FIELD", {"field": field})
    assert edge.use_cases.calls == []


async def test_pages_follow_each_other_and_only_for_who_asked_and_for_the_same_filter(edge: Any) -> None:
    edge.use_cases.answers["page"] = EventPage((EVENT,), more=True)
    first = await edge.call("ListAuditEvents", ListAuditEventsRequest(kind="revoked"))
    asked = ListAuditEventsRequest(kind="revoked", page_token=first.next_page_token)
    await edge.call("ListAuditEvents", asked)
    assert edge.use_cases.calls[-1][2]["after"] == f"{NOON.isoformat()} {ID}"
    edge.use_cases.calls.clear()
    for other in ({"kind": "connected"}, {"caller": "web"}, {"start_time": timestamp(NOON)}):
        changed = ListAuditEventsRequest(**{"kind": "revoked", "page_token": first.next_page_token, **other})
        assert (await edge.refusal("ListAuditEvents", changed)).facts == {"field": "page_token"}
    assert (await edge.refusal("ListAuditEvents", asked, key="other-key")).facts == {"field": "page_token"}
    assert edge.use_cases.calls == []


def test_a_token_of_the_accounts_is_none_of_the_events_nor_the_other_way_round() -> None:
    tokens, caller = PageTokens(b"k" * 32), Caller("ops")
    of_events, of_accounts = EventFilter(), Listing(None, None, frozenset())
    with pytest.raises(InvalidField):
        tokens.read(caller, of_accounts, tokens.write(caller, of_events, ID))
    with pytest.raises(InvalidField):
        tokens.read(caller, of_events, tokens.write(caller, of_accounts, ID))


# --- where a call came from


async def origin_of(edge: Any, *metadata: tuple[str, str]) -> tuple[str, str]:
    """What an event of a call would record."""
    seen = []

    async def look() -> Any:
        seen.append(ORIGIN.get()())
        seen.append(ORIGIN.get()())
        return edge.use_cases.answers["get"]

    answers = edge.use_cases.answers
    answers["revoke"] = look
    request = pb.RevokeRequest(id=ID)
    await edge.stub.Revoke(request, metadata=(("authorization", "Bearer full-key"), *metadata), timeout=10)
    assert seen[0] == seen[1], "one call has one request id"
    return seen[0].peer, seen[0].request_id


async def test_a_call_is_known_by_its_peer_and_the_request_id_that_the_caller_sent(edge: Any) -> None:
    peer, request_id = await origin_of(edge, ("x-request-id", "01J8/req-7"))
    assert peer.startswith("ipv4:127.0.0.1:") and request_id == "01J8/req-7"


@pytest.mark.parametrize("sent", [(), (("x-request-id", "x" * 65),), (("x-request-id", "a b"),)])
async def test_a_call_without_a_sound_request_id_gets_one_of_its_own(edge: Any, sent: Any) -> None:
    ids = {(await origin_of(edge, *sent))[1] for _ in range(2)}
    assert len(ids) == 2 and all(len(each) == 36 for each in ids)


async def test_forwarded_headers_play_no_part_in_where_a_call_came_from(edge: Any) -> None:
    peer, _ = await origin_of(edge, ("x-forwarded-for", "10.9.9.9"), ("forwarded", "for=10.9.9.9"))
    assert "10.9.9.9" not in peer


async def test_what_is_done_outside_of_a_call_came_from_nowhere(edge: Any) -> None:
    await origin_of(edge)
    assert ORIGIN.get()() == NOWHERE
