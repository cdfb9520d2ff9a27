"""PlatformService: acting on accounts' behalf, and telling for what they were used."""

from __future__ import annotations

from synposter.accounts.v1 import platform_service_pb2 as pb

from server.accounts.acting import Actor
from server.accounts.audit import cursor
from server.accounts.callers import Caller
from server.accounts.calls import ApiAnswer
from server.accounts.errors import InvalidField
from server.accounts.events import Event, EventFilter, EventKind
from server.accounts.rate_limits import tightest
from server.accounts.usage import UsageLog, usage_of
from server.rpc import call_fields, fields
from server.rpc.messages import write_time
from server.rpc.page_tokens import PageTokens


class PlatformService:
    """The methods of synposter.accounts.v1.PlatformService, by their names there; guard.py wraps them."""

    def __init__(self, actor: Actor, usage: UsageLog, page_tokens: PageTokens) -> None:
        self._actor = actor
        self._usage = usage
        self._page_tokens = page_tokens

    async def Call(self, request: pb.CallRequest, caller: Caller, left: float | None) -> pb.CallResponse:  # noqa: N802
        answer = await self._actor.call(caller, call_fields.call(request), left)
        return to_response(answer)

    async def ListUsage(self, request: pb.ListUsageRequest, caller: Caller) -> pb.ListUsageResponse:  # noqa: N802
        which = usage_filter(request, caller)
        page = await self._usage.usage(
            caller,
            which,
            size=fields.page_size(request.page_size),
            after=self._page_tokens.read(caller, which, request.page_token),
        )
        response = pb.ListUsageResponse()
        for event in page.events:
            write_usage(response.usages.add(), event)
        if page.more:
            response.next_page_token = self._page_tokens.write(caller, which, cursor(page.events[-1]))
        return response


def to_response(answer: ApiAnswer) -> pb.CallResponse:
    response = pb.CallResponse(status_code=answer.status, body=answer.body)
    for name, value in answer.headers:
        header = response.headers.add()
        header.name, header.value = name, value
    limit = tightest(answer.rate_limits)
    if limit is not None:
        response.rate_limit.limit, response.rate_limit.remaining = limit.limit, limit.remaining
        if limit.reset_time is not None:
            write_time(response.rate_limit.reset_time, limit.reset_time)
    return response


def usage_filter(request: pb.ListUsageRequest, caller: Caller) -> EventFilter:
    """Raises InvalidField."""
    whose = request.WhichOneof("of")
    if whose is None:
        raise InvalidField("of", "account_id or profile_id is required")
    return usage_of(
        caller,
        account_id=fields.account_id(request.account_id, "account_id") if whose == "account_id" else None,
        profile_id=fields.profile_id(request.profile_id) if whose == "profile_id" else None,
        start_time=fields.moment(request.start_time, "start_time") if request.HasField("start_time") else None,
        end_time=fields.moment(request.end_time, "end_time") if request.HasField("end_time") else None,
    )


def write_usage(into: pb.Usage, event: Event) -> None:
    write_time(into.time, event.time)
    for name in ("caller", "platform", "result", "request_id"):
        setattr(into, name, getattr(event, name))
    into.account_id = event.account_id or ""
    into.method = str(event.facts.get("method", ""))
    into.route = str(event.facts.get("route", ""))
    into.status_code = int(event.facts.get("status", 0))
    into.use_id = event.id if event.kind == EventKind.ACCOUNT_USED else str(event.facts.get("use_id", ""))
