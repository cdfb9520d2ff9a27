"""What can go wrong, as types: what callers are told, and what platforms answered.

A domain error knows its reason and facts, not its gRPC status; `rpc.errors` maps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Reason(StrEnum):
    """The reasons callers decide by: the names of the proto enum ErrorReason without its prefix."""

    INVALID_FIELD = "INVALID_FIELD"
    UNKNOWN_PLATFORM = "UNKNOWN_PLATFORM"
    ACCOUNT_NOT_FOUND = "ACCOUNT_NOT_FOUND"
    CONNECT_NOT_FOUND = "CONNECT_NOT_FOUND"
    CONNECT_EXPIRED = "CONNECT_EXPIRED"
    CONNECT_FAILED = "CONNECT_FAILED"
    USER_DENIED = "USER_DENIED"
    CODE_REFUSED = "CODE_REFUSED"
    WRONG_PLATFORM_USER = "WRONG_PLATFORM_USER"
    ACCOUNT_EXPIRED = "ACCOUNT_EXPIRED"
    ACCOUNT_REVOKED = "ACCOUNT_REVOKED"
    MISSING_SCOPE = "MISSING_SCOPE"
    PLATFORM_PAUSED = "PLATFORM_PAUSED"
    CONNECT_MISMATCH = "CONNECT_MISMATCH"
    CALLER_NOT_PERMITTED = "CALLER_NOT_PERMITTED"
    CALLER_UNKNOWN = "CALLER_UNKNOWN"
    PLATFORM_UNAVAILABLE = "PLATFORM_UNAVAILABLE"
    IDENTITY_UNAVAILABLE = "IDENTITY_UNAVAILABLE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    RATE_LIMITED = "RATE_LIMITED"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    RESPONSE_WITHHELD = "RESPONSE_WITHHELD"
    RESUME_TOKEN_TOO_OLD = "RESUME_TOKEN_TOO_OLD"  # noqa: S105 (a reason)
    INTERNAL = "INTERNAL"


class AccountError(Exception):
    """A failure that a caller is told about, with the facts a program can use."""

    reason: Reason
    retry_after: timedelta | None = None

    def __init__(self, text: str, **facts: str) -> None:
        super().__init__(text)
        self.text = text
        self.facts = facts


class InvalidField(AccountError):
    """A field of the request is missing or malformed."""

    reason = Reason.INVALID_FIELD

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", field=field)
        self.field = field
        self.problem = problem


class UnknownPlatform(AccountError):
    reason = Reason.UNKNOWN_PLATFORM

    def __init__(self, platform: str, known: tuple[str, ...]) -> None:
        names = ", ".join(known)
        super().__init__(f"platform: {platform!r} is not known here; known: {names}", platform=platform, known=names)
        self.field = "platform"
        self.problem = f"{platform!r} is not known here; known: {names}"


class AccountNotFound(AccountError):
    reason = Reason.ACCOUNT_NOT_FOUND

    def __init__(self, account_id: str) -> None:
        super().__init__(f"there is no account {account_id!r}", account_id=account_id)


class CallerUnknown(AccountError):
    reason = Reason.CALLER_UNKNOWN


class CallerNotPermitted(AccountError):
    reason = Reason.CALLER_NOT_PERMITTED


class RateLimited(AccountError):
    """Too much in too short a time; `limit` says of what, and `retry_after` when there is room again."""

    reason = Reason.RATE_LIMITED

    def __init__(self, text: str, retry_after: timedelta, *, limit: str) -> None:
        super().__init__(text, limit=limit)
        self.retry_after = retry_after


class ResumeTokenTooOld(AccountError):
    """What changed since cannot be told any more, or not to this caller: the accounts have to be listed again."""

    reason = Reason.RESUME_TOKEN_TOO_OLD


class StoreUnavailable(AccountError):
    """The database did not answer or does not take the write; nothing was changed, or the outcome is to be read."""

    reason = Reason.STORE_UNAVAILABLE
    retry_after = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Reconnect:
    """What BeginConnect has to be asked so that the user can mend an account."""

    profile_id: str
    platform: str
    account_id: str
    scopes: Sequence[str]


class AccountExpired(AccountError):
    """The account's grant is dead: the user has to connect it again."""

    reason = Reason.ACCOUNT_EXPIRED

    def __init__(self, status_reason: str, reconnect: Reconnect) -> None:
        text = "the account is expired; the user has to connect it again"
        super().__init__(text, account_id=reconnect.account_id, status_reason=status_reason)
        self.reconnect = reconnect


class MissingScope(AccountError):
    """The user did not grant what the call needs."""

    reason = Reason.MISSING_SCOPE

    def __init__(self, scopes: Sequence[str], reconnect: Reconnect) -> None:
        missing = " ".join(scopes)
        super().__init__(f"the user has not granted: {missing}", account_id=reconnect.account_id, scopes=missing)
        self.reconnect = reconnect


class AccountRevoked(AccountError):
    reason = Reason.ACCOUNT_REVOKED

    def __init__(self, account_id: str) -> None:
        super().__init__("the account was revoked; the user has to connect it again", account_id=account_id)


class PlatformPaused(AccountError):
    """An operator has paused the platform."""

    reason = Reason.PLATFORM_PAUSED

    def __init__(self, platform: str, why: str) -> None:
        super().__init__(f"{platform} is paused: {why}", platform=platform)


class PlatformUnavailable(AccountError):
    """The platform cannot be asked now, or brought nothing; `retry_after` is when to try again."""

    reason = Reason.PLATFORM_UNAVAILABLE

    def __init__(self, platform: str, why: str, retry_after: timedelta) -> None:
        super().__init__(f"{platform} brought no fresh token: {why}", platform=platform)
        self.retry_after = retry_after


class NothingSent(AccountError):
    """A call on an account's behalf that provably did not reach the platform, or that may simply be repeated."""

    reason = Reason.PLATFORM_UNAVAILABLE
    retry_after = timedelta(seconds=1)

    def __init__(self, platform: str, why: str) -> None:
        super().__init__(f"{platform}: {why}", platform=platform)


class CallOutcomeUnknown(AccountError):
    """A call on an account's behalf was sent and no readable answer came: it may have been done."""

    reason = Reason.OUTCOME_UNKNOWN

    def __init__(self, platform: str, use_id: str, why: str) -> None:
        text = f"{platform}: {why}; it may have been done: look before you repeat it"
        super().__init__(text, platform=platform, use_id=use_id)


class ResponseWithheld(AccountError):
    """The platform's answer to a call on an account's behalf is not passed on."""

    reason = Reason.RESPONSE_WITHHELD

    def __init__(self, platform: str, use_id: str, status: int, why: str) -> None:
        text = f"{platform} answered {status}, and the answer is withheld: {why}"
        super().__init__(text, platform=platform, use_id=use_id, status_code=str(status), why=why)


class TimeOver(Exception):
    """The time of a call is over, and it left nothing behind. No reason of ours: gRPC has a status for it."""


class ConnectRefused(AccountError):
    """A connect that cannot be completed, for the reason that was recorded with it."""

    def __init__(self, reason: Reason, text: str, **facts: str) -> None:
        super().__init__(text, **facts)
        self.reason = reason


class PlatformError(Exception):
    """A request to a platform that brought no result. `text` is for operators; it holds no secret.

    `status` and `error` are the HTTP status and the OAuth error code, where there were any.
    """

    def __init__(self, text: str, *, status: int | None = None, error: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.error = error


class NotSent(PlatformError):
    """It provably never reached the platform (DNS, connect, TLS): nothing is at stake."""


class PlatformRefused(PlatformError):
    """The platform did not do it, and may do it later (429, 5xx where nothing rotates)."""

    def __init__(
        self, text: str, *, status: int | None = None, error: str = "", retry_after: timedelta | None = None
    ) -> None:
        super().__init__(text, status=status, error=error)
        self.retry_after = retry_after


class OurFault(PlatformError):
    """The platform refuses our registration or our request as such: no account is to blame."""

    @property
    def refuses_us(self) -> bool:
        """Whether every other request would fare alike: it is our registration, or the address is wrong."""
        moved = self.status is not None and 300 <= self.status < 400
        return moved or self.status == 401 or self.error in ("invalid_client", "unauthorized_client")


class GrantDead(PlatformError):
    """The platform refuses this grant (or this authorization code) for good."""


class TokenRejected(PlatformError):
    """An API call was answered 401: the access token is not good any more. Only a refresh can tell about the grant."""


class OutcomeUnknown(PlatformError):
    """It was sent, and no answer came that could be read: it may have been done.

    `reply` is what did arrive, if anything: it may hold the only live token, so it is kept sealed. `retry_after` is how
    long the platform wants to be left alone.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int | None = None,
        error: str = "",
        reply: bytes = b"",
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(text, status=status, error=error)
        self.reply = reply
        self.retry_after = retry_after
