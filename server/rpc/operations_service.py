"""OperationsService: what operators ask for, read, told and written."""

from __future__ import annotations

from synposter.accounts.v1 import operations_service_pb2 as pb

from server.accounts.callers import Caller
from server.accounts.events import Event
from server.accounts.explain import Explainer
from server.accounts.grants import GrantRecord
from server.rpc import fields
from server.rpc.messages import write_account, write_time


class OperationsService:
    """The methods of synposter.accounts.v1.OperationsService, by their names there; guard.py wraps them."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer

    async def ExplainAccount(self, request: pb.ExplainAccountRequest, caller: Caller) -> pb.ExplainAccountResponse:  # noqa: N802
        story = await self._explainer.explain(caller, fields.account_id(request.id, "id"))
        response = pb.ExplainAccountResponse(next_step=story.next_step, platform_hold=story.platform_hold)
        write_account(response.account, story.account)
        if story.next_time is not None:
            write_time(response.next_time, story.next_time)
        if story.grant is not None:
            write_grant(response.grant, story.grant)
        for event in story.events:
            write_event(response.events.add(), event)
        return response


def write_grant(into: pb.GrantReport, grant: GrantRecord) -> None:
    into.id = grant.id
    into.state = grant.state
    into.generation = grant.generation
    into.refreshable = grant.refreshable
    into.sends = grant.sends
    into.failed_attempts = grant.attempts
    into.last_error = grant.last_error
    into.lease_owner = grant.lease_owner
    into.has_candidate = grant.has_candidate
    into.has_unread_reply = grant.has_unread_reply
    for name in ("access_token_expire_time", "due_time", "last_refresh_time", "create_time", "lease_expire_time"):
        moment = getattr(grant, name)
        if moment is not None:
            write_time(getattr(into, name), moment)


def write_event(into: pb.AccountEvent, event: Event) -> None:
    write_time(into.time, event.time)
    into.kind = event.kind
    into.caller = event.caller
    for name, fact in event.facts.items():
        into.facts[name] = " ".join(fact) if isinstance(fact, list) else str(fact)
    into.number = event.number or 0
