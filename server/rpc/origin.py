"""Where a call came from, for the events that it causes."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote

import grpc.aio
import uuid_utils

from server.accounts.audit import Origin

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/=+-]{1,64}")


class CallOrigin:
    """The origin of one call, found when it is first asked for: most calls record nothing."""

    __slots__ = ("_context", "_found")

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._context = context
        self._found: Origin | None = None

    def __call__(self) -> Origin:
        if self._found is None:
            self._found = Origin(unquote(self._context.peer())[:128], request_id(self._context))
        return self._found


def request_id(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The `x-request-id` of the metadata, if it looks like one, else an id of ours. It proves nothing."""
    for name, value in context.invocation_metadata() or ():
        if name == "x-request-id" and isinstance(value, str) and REQUEST_ID.fullmatch(value):
            return value
    return str(uuid_utils.uuid4())
