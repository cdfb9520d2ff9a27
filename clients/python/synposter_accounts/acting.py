"""Acting on an account's behalf: what the platform answered, and for what accounts were used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from synposter.accounts.v1 import platform_service_pb2 as pb

from synposter_accounts.model import time_of


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What the platform said of its limit: `remaining` of `limit` requests are left until `reset_time`."""

    limit: int
    remaining: int
    reset_time: datetime | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The platform's answer to a call, whatever its status. Header names are in lower case."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    rate_limit: RateLimit | None

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status_code < 400

    def json(self) -> Any:
        """The body as JSON. Raises ValueError where it is none, as error pages often are not."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Usage:
    """One use of an account as it was recorded before it was sent; or, with the same `use_id`, how one ended that did
    not end well. See Usage in the protos for each field."""

    time: datetime | None
    caller: str
    account_id: str
    platform: str
    method: str
    route: str
    result: str
    status_code: int
    request_id: str
    use_id: str


def to_answer(message: pb.CallResponse) -> Answer:
    limit = message.rate_limit
    return Answer(
        status_code=message.status_code,
        headers={header.name: header.value for header in message.headers},
        body=message.body,
        rate_limit=RateLimit(limit.limit, limit.remaining, time_of(limit, "reset_time"))
        if message.HasField("rate_limit")
        else None,
    )


def to_usage(message: pb.Usage) -> Usage:
    return Usage(
        time=time_of(message, "time"),
        caller=message.caller,
        account_id=message.account_id,
        platform=message.platform,
        method=message.method,
        route=message.route,
        result=message.result,
        status_code=message.status_code,
        request_id=message.request_id,
        use_id=message.use_id,
    )
