"""Names what callers do, so that the service's audit can be laid beside their own logs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeAlias

Metadata: TypeAlias = tuple[tuple[str, str], ...]

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/=+-]{1,64}")
"""What the service takes; in place of anything else it makes an id of its own."""

_present: ContextVar[str | None] = ContextVar("request_id", default=None)


@contextmanager
def request_id(text: str) -> Iterator[None]:
    """Whatever this thread or task asks for within goes out under this id: the audit and `list_usage` tell it.

    1 to 64 characters of ASCII letters, digits and `._:/=+-`, such as a job's UUID. Raises ValueError.
    """
    if not REQUEST_ID.fullmatch(text):
        raise ValueError(f"a request id is 1 to 64 characters of [A-Za-z0-9._:/=+-], not {text!r}")
    token = _present.set(text)
    try:
        yield
    finally:
        _present.reset(token)


def with_request_id(metadata: Metadata) -> Metadata:
    """The metadata of a call, with the present id if there is one."""
    present = _present.get()
    return metadata if present is None else (*metadata, ("x-request-id", present))
