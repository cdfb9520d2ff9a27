"""Who may call what: the policy line of each method, and what is known of its callers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from server.accounts.blocks import Blocks
from server.accounts.callers import Caller, Limits, Permission
from server.accounts.calls import LARGEST_BODY
from server.accounts.errors import CallerNotPermitted, InvalidField
from server.accounts.limits import CallerLimits
from server.accounts.refusals import Refusals
from server.rpc import fields
from server.rpc.credentials import Context, Credentials, Metadata
from server.rpc.origin import CallOrigin


class Access(Enum):
    """What a method needs where it is no permission."""

    OPEN = "open"
    """No credential is asked for; the method is told that nobody called."""
    ANY_CALLER = "any caller"


Need: TypeAlias = Permission | Access


@dataclass(frozen=True, slots=True)
class Line:
    """The policy line of a method: what it needs, and what a call of it counts as."""

    need: Need
    names: str = ""
    """The field of the request that names an account."""
    lists: bool = False
    """Whether its response shows `accounts` that the request does not name."""
    revokes: bool = False
    erases: bool = False
    """Whether its response tells of `accounts` that it has revoked, and that the request does not name."""
    uses: bool = False
    """Whether its response tells of `usages`, which show accounts that the request may not name."""
    audits: bool = False
    """Whether its response tells of `events`, which show accounts that the request may not name."""
    largest: int = 256 * 1024
    """Bytes of a request; gRPC has one limit for all methods of a server."""
    keeps_time: bool = False
    """Whether the method is told what is left of the call's deadline, and ends in time by itself."""


Parse: TypeAlias = Callable[[bytes], Any]

NOBODY: Final = Caller(name="")

LINES: Final[Mapping[str, Line]] = {
    "synposter.accounts.v1.AccountService.BeginConnect": Line(Permission.CONNECT, names="account_id"),
    "synposter.accounts.v1.AccountService.CompleteConnect": Line(Permission.CONNECT),
    "synposter.accounts.v1.AccountService.GetAccount": Line(Permission.READ, names="id"),
    "synposter.accounts.v1.AccountService.ListAccounts": Line(Permission.READ, lists=True),
    "synposter.accounts.v1.AccountService.WatchAccounts": Line(Permission.READ, lists=True),
    "synposter.accounts.v1.AccountService.RefreshAccount": Line(Permission.REFRESH, names="id"),
    "synposter.accounts.v1.AccountService.Revoke": Line(Permission.REVOKE, names="id", revokes=True),
    "synposter.accounts.v1.AccountService.DeleteProfile": Line(Permission.DELETE, revokes=True, erases=True),
    "synposter.accounts.v1.PlatformService.Call": Line(
        Permission.ACT, names="account_id", largest=LARGEST_BODY + 256 * 1024, keeps_time=True
    ),
    "synposter.accounts.v1.PlatformService.ListUsage": Line(Permission.READ, names="account_id", uses=True),
    "synposter.accounts.v1.OperationsService.ExplainAccount": Line(Permission.OPERATE, names="id"),
    "synposter.accounts.v1.OperationsService.ListAuditEvents": Line(Permission.OPERATE, audits=True),
    "grpc.health.v1.Health.Check": Line(Access.OPEN),
    "grpc.health.v1.Health.List": Line(Access.OPEN),
    "grpc.health.v1.Health.Watch": Line(Access.OPEN),
    "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo": Line(Access.ANY_CALLER),
}
LARGEST_REQUEST: Final = max(line.largest for line in LINES.values())
UNLIMITED: Final = CallerLimits(Limits(), time.monotonic)


class MethodWithoutPolicy(RuntimeError):
    """A method is served that nobody has decided about; the server must not start."""


class Policy:
    """Knows who calls, who is blocked, what each caller has done of late, and what each method needs."""

    def __init__(
        self,
        credentials: Credentials,
        blocks: Blocks,
        refusals: Refusals,
        lines: Mapping[str, Line] = LINES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._credentials = credentials
        self._blocks = blocks
        self._refusals = refusals
        self._lines = lines
        self._clock = clock
        self._limits: dict[str, CallerLimits] = {}

    def line(self, method: str) -> Line:
        """The line of the method of this full name (`package.Service.Method`). Raises MethodWithoutPolicy."""
        if method not in self._lines:
            raise MethodWithoutPolicy(f"{method} has no line in the policy table (server/rpc/policy.py)")
        return self._lines[method]

    def caller(self, context: Context, metadata: Metadata, line: Line) -> Caller:
        """The caller behind a call. Raises CallerUnknown."""
        return NOBODY if line.need is Access.OPEN else self._credentials.caller(context, metadata)

    def admit(self, caller: Caller, line: Line) -> CallerLimits:
        """The caller's limits, if the method is for it. Raises CallerNotPermitted, RateLimited."""
        need = line.need
        if need is Access.OPEN:
            return UNLIMITED
        self._blocks.check(caller.name)
        limits = self._limits.get(caller.name)
        if limits is None:
            limits = self._limits[caller.name] = CallerLimits(caller.limits, self._clock)
        limits.call()
        if need is not Access.ANY_CALLER and need not in caller.permissions:
            raise CallerNotPermitted(f"this call needs the permission {need.value}", permission=need.value)
        return limits

    def refused(self, method: Method, caller: Caller, origin: CallOrigin, raw: Any, error: Exception) -> None:
        """Sees to it that a call that was refused is audited."""
        self._refusals.note(caller.name, method.name, error, origin, lambda: named(raw, method))


@dataclass(frozen=True, slots=True)
class Method:
    """What the guard knows of a method."""

    name: str
    line: Line
    parse: Parse


def named(raw: Any, method: Method) -> str | None:
    """The account that a refused request names, if it can be read."""
    field = method.line.names
    if not field or not isinstance(raw, bytes):
        return None
    try:
        return fields.account_id(getattr(method.parse(raw), field), field)
    except InvalidField:
        return None
