"""Who may call what: the policy line of each method, and the wrapper that enforces it and answers errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NoReturn, TypeAlias

from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from server.accounts.audit import ORIGIN
from server.accounts.background import Background
from server.accounts.blocks import Blocks
from server.accounts.callers import Caller, Limits, Permission
from server.accounts.calls import LARGEST_BODY
from server.accounts.errors import CallerNotPermitted, InvalidField
from server.accounts.limits import CallerLimits
from server.accounts.refusals import Refusals
from server.accounts.watcher import CutOff
from server.rpc import fields
from server.rpc.credentials import Context, Credentials
from server.rpc.errors import DeadlineTooShort, RequestTooLarge, StreamCutOff, status_of
from server.rpc.messages import Encoded
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
LEAST_SECONDS: Final = 0.1
"""What a call must have left of its deadline, or nothing is begun: its answer would come too late."""
DEFAULT_SECONDS: Final = 30.0
"""What a call without a deadline gets. gRPC itself ends the others in time."""
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
            raise MethodWithoutPolicy(f"{method} has no line in the policy table (server/rpc/guard.py)")
        return self._lines[method]

    def caller(self, context: Context, line: Line) -> Caller:
        """The caller behind a call. Raises CallerUnknown."""
        return NOBODY if line.need is Access.OPEN else self._credentials.caller(context)

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


def count(request: Any, line: Line, limits: CallerLimits) -> None:
    """Holds what is asked for against the caller's limits. Raises RateLimited."""
    if line.names and (account_id := getattr(request, line.names)):
        limits.account(account_id)
    elif line.lists or line.uses or line.audits:
        limits.listing()
    if line.revokes:
        limits.revoke()


def guarded(
    behave: Callable[..., Awaitable[Any]], method: Method, policy: Policy
) -> Callable[[bytes, Context], Awaitable[bytes]]:
    """Wraps a method that answers once.

    Parsing and serializing happen in here because grpcio answers a failure of its own serializers with UNKNOWN, and
    so that a request is not parsed for a stranger.
    """
    line, parse, background = method.line, method.parse, Background()
    shows = line.lists or line.uses or line.audits

    async def call(raw: bytes, context: Context) -> bytes:
        caller, origin, turn = NOBODY, CallOrigin(context), None
        ORIGIN.set(origin)
        try:
            caller = policy.caller(context, line)
            limits = policy.admit(caller, line)
            left = context.time_remaining()
            if left is not None and left < LEAST_SECONDS:
                raise DeadlineTooShort(f"a call needs {LEAST_SECONDS * 1000:.0f} ms to begin; it had {left * 1000:.0f}")
            request = parse(raw)
            if shows and limits.turn is not None:
                await limits.turn.acquire()
                turn = limits.turn
            count(request, line, limits)
            if line.keeps_time:
                response = await behave(request, caller, left)
            else:
                answer = behave(request, caller)
                if line.erases:
                    answer = seen_through(
                        background, answer, lambda receipt: limits.revoked(each.account_id for each in receipt.accounts)
                    )
                response = await (in_time(answer) if left is None else answer)
            if shows:
                limits.listed(shown(response, line))
            return response.SerializeToString()  # type: ignore[no-any-return]
        except Exception as error:
            policy.refused(method, caller, origin, raw, error)
            await refuse(context, error)
        finally:
            if turn is not None:
                turn.release()

    return call


def shown(response: Any, line: Line) -> Iterable[str]:
    """The accounts that a response shows."""
    if line.lists:
        return [account.id for account in response.accounts]
    if line.uses:
        return {usage.account_id for usage in response.usages}
    return {event.account_id for event in response.events if event.account_id}


async def seen_through(background: Background, answer: Awaitable[Any], count: Callable[[Any], None]) -> Any:
    """An answer that is brought about and counted, also if its caller does not wait for it."""

    async def counted() -> Any:
        response = await answer
        count(response)
        return response

    return await asyncio.shield(background.begin(counted()))


async def in_time(answer: Awaitable[Any]) -> Any:
    """Raises DeadlineTooShort when it takes longer than DEFAULT_SECONDS; what may not be cut off shields itself."""
    try:
        async with asyncio.timeout(DEFAULT_SECONDS) as limit:
            return await answer
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineTooShort(f"the call had no deadline, and took {DEFAULT_SECONDS:.0f} s") from None


def guarded_stream(
    behave: Callable[[Any, Caller], AsyncGenerator[Message | Encoded, None]], method: Method, policy: Policy
) -> Callable[[Any, Context], Awaitable[None]]:
    """Wraps a method that answers with a stream, whether it is asked once or by a stream."""

    line, parse = method.line, method.parse

    async def call(raw: bytes | AsyncIterable[bytes], context: Context) -> None:
        caller, origin = NOBODY, CallOrigin(context)
        ORIGIN.set(origin)
        try:
            caller = policy.caller(context, line)
            limits = policy.admit(caller, line)
            request = parse(raw) if isinstance(raw, bytes) else (parse(one) async for one in raw)
            # Closed here and now: a caller that is gone leaves nothing behind.
            async with aclosing(behave(request, caller)) as responses:
                async for response in responses:
                    await context.write(encoded(response, line, limits))
        except asyncio.CancelledError as cancelled:
            for cut_off in cancelled.args:
                if isinstance(cut_off, CutOff):
                    error = cut_off.error or StreamCutOff("the stream was not read")
                    policy.refused(method, caller, origin, raw, error)
                    await refuse(context, error)
            raise
        except Exception as error:
            policy.refused(method, caller, origin, raw, error)
            await refuse(context, error)

    return call


def encoded(response: Message | Encoded, line: Line, limits: CallerLimits) -> bytes:
    """A response of a stream as bytes; its accounts are held against the caller's limits. Raises RateLimited."""
    if not isinstance(response, Encoded):
        return response.SerializeToString()
    if line.lists and response.account_ids:
        limits.listing()
        limits.listed(response.account_ids)
    return response.raw


def parser(message: type[Message], largest: int) -> Parse:
    """Reads requests of one type; the parse raises InvalidField for bytes that are none, and for too many."""
    name, from_string = message.DESCRIPTOR.full_name, message.FromString

    def parse(raw: bytes) -> Message:
        if len(raw) > largest:
            raise RequestTooLarge(largest)
        try:
            return from_string(raw)
        except DecodeError:
            raise InvalidField("request", f"the bytes are no {name}") from None

    return parse


async def refuse(context: Context, error: Exception) -> NoReturn:
    """Ends the call with the error's status: the only place that does."""
    status = rpc_status.to_status(status_of(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
