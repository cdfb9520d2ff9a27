"""Where a call came from, for the events that it causes."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

import uuid_utils

from server.accounts.audit import Origin
from server.rpc.credentials import Context, Metadata

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/=+-]{1,64}")


class CallOrigin:
    """The origin of one call, found when it is first asked for: most calls record nothing."""

    __slots__ = ("_context", "_found", "_metadata")

    def __init__(self, context: Context, metadata: Metadata) -> None:
        self._context = context
        self._metadata = metadata
        self._found: Origin | None = None

    def __call__(self) -> Origin:
        if self._found is None:
            self._found = Origin(unquote(self._context.peer())[:128], request_id(self._metadata))
            self._metadata = ()  # a credential is in it, and what a call begins keeps its origin
        return self._found


def request_id(metadata: Metadata) -> str:
    """The `x-request-id` of the metadata, if it looks like one, else an id of ours. It proves nothing."""
    for name, value in metadata:
        if name == "x-request-id" and isinstance(value, str) and REQUEST_ID.fullmatch(value):
            return value
    return str(uuid_utils.uuid4())
