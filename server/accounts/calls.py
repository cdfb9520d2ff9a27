"""The nouns of acting: a request on an account's behalf, the platform's answer to it, and the use that is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple, Protocol

from server.accounts.errors import PlatformError
from server.accounts.grants import TokenSet
from server.accounts.model import Account
from server.accounts.rate_limits import RateLimit

LARGEST_BODY: Final = 8 * 1024 * 1024
"""Of a request, and of an answer once it is unpacked."""
USUAL_TIMEOUT: Final = timedelta(seconds=30)
USUAL_LIFETIME: Final = timedelta(seconds=60)
"""What a call gets that asks for nothing else."""
MOST_IN_FLIGHT: Final = 1_024
"""Calls to one platform at once, unless the settings say otherwise."""


@dataclass(frozen=True, slots=True, repr=False)
class ApiCall:
    """One HTTP request that a caller wants sent; its repr is left out, since it holds what users write."""

    account_id: str
    method: str
    segments: tuple[str, ...]
    """Those of its path."""
    query: Sequence[tuple[str, str]] = ()
    headers: Sequence[tuple[str, str]] = ()
    """With names in lower case, each once."""
    content_type: str = ""
    body: bytes = b""
    timeout: timedelta = USUAL_TIMEOUT
    min_remaining_lifetime: timedelta = USUAL_LIFETIME
    refuse_if_limited: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class ApiAnswer:
    """What the platform answered, as far as it is passed on."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    rate_limits: Sequence[RateLimit] = ()
    retry_after: timedelta | None = None
    withheld: str = ""
    """Why nothing of it but its status is passed on, in one word; empty if the rest is."""


class AnswerWithheld(PlatformError):
    """The platform answered, and the answer must not or cannot be passed on; `why` in one word."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"the answer was withheld: {why}", status=status)
        self.http_status = status
        self.why = why


class PreparedCall(Protocol):
    """A call that may be sent to its platform, any number of times."""

    @property
    def route(self) -> str:
        """What the platform counts it under for its rate limits, as far as its definition knows."""

    @property
    def scopes(self) -> Sequence[str]:
        """The scopes without which the platform would refuse it, as far as its definition knows."""

    async def send(self, token_set: TokenSet, limit: timedelta) -> ApiAnswer:
        """Sends it once, with this token. Raises NotSent, OutcomeUnknown, AnswerWithheld."""


class Api(Protocol):
    """The API of one platform as it may be called on accounts' behalf."""

    def prepare(self, call: ApiCall) -> PreparedCall:
        """Raises InvalidField for what this platform's definition does not let callers send."""


class Use(NamedTuple):
    """A use of an account, about to be sent: what is recorded of it."""

    id: str
    account: Account
    caller: str
    method: str
    route: str
    """The caller's template that the path matched: a path can hold personal data, a template does not."""
    peer: str
    request_id: str


class UseFailed(NamedTuple):
    """How a use ended that ended in anything but an answer below 400."""

    use: Use
    result: str
    status: int
