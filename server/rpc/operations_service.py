"""OperationsService: what operators ask for, read, told and written."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from synposter.accounts.v1 import operations_service_pb2 as pb

from server.accounts.audit import AuditLog, cursor
from server.accounts.callers import Caller
from server.accounts.events import Event
from server.accounts.explain import Explainer
from server.accounts.grants import GrantRecord
from server.rpc import fields
from server.rpc.messages import write_account, write_time
from server.rpc.page_tokens import PageTokens


class OperationsService:
    """The methods of synposter.accounts.v1.OperationsService, by their names there; guard.py wraps them."""

    def __init__(self, explainer: Explainer, audit: AuditLog, page_tokens: PageTokens) -> None:
        self._explainer = explainer
        self._audit = audit
        self._page_tokens = page_tokens

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

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, caller: Caller) -> pb.ListAuditEventsResponse:  # noqa: N802
        which = fields.event_filter(request)
        page = await self._audit.page(
            caller,
            which,
            size=fields.page_size(request.page_size),
            after=self._page_tokens.read(caller, which, request.page_token),
        )
        response = pb.ListAuditEventsResponse()
        for event in page.events:
            write_audit_event(response.events.add(), event)
        if page.more:
            response.next_page_token = self._page_tokens.write(caller, which, cursor(page.events[-1]))
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
    write_facts(into.facts, event.facts)
    into.number = event.number or 0


def write_audit_event(into: pb.AuditEvent, event: Event) -> None:
    write_time(into.time, event.time)
    for name in ("id", "kind", "caller", "peer", "request_id", "result", "profile_id", "platform"):
        setattr(into, name, getattr(event, name))
    into.account_id = event.account_id or ""
    into.chain_position = event.position or 0
    write_facts(into.facts, event.facts)


def write_facts(into: MutableMapping[str, str], facts: Mapping[str, Any]) -> None:
    for name, fact in facts.items():
        into[name] = " ".join(map(str, fact)) if isinstance(fact, list) else str(fact)
