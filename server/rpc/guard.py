"""Who may call what: the policy line of each method, and the wrapper that enforces it and answers errors."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, Final, NoReturn, TypeAlias

from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from server.accounts.callers import Caller, Permission
from server.accounts.errors import CallerNotPermitted, InvalidField
from server.rpc.credentials import Context, Credentials
from server.rpc.errors import status_of


class Access(Enum):
    """What a method needs where it is no permission."""

    OPEN = "open"
    """No credential is asked for; the method is told that nobody called."""
    ANY_CALLER = "any caller"


Need: TypeAlias = Permission | Access
Admit: TypeAlias = Callable[[Context, Need], Caller]
Parse: TypeAlias = Callable[[bytes], Any]

NOBODY: Final = Caller(name="")

NEEDS: Final[Mapping[str, Need]] = {
    "synposter.accounts.v1.AccountService.BeginConnect": Permission.CONNECT,
    "synposter.accounts.v1.AccountService.CompleteConnect": Permission.CONNECT,
    "synposter.accounts.v1.AccountService.GetAccount": Permission.READ,
    "synposter.accounts.v1.AccountService.ListAccounts": Permission.READ,
    "synposter.accounts.v1.AccountService.RefreshAccount": Permission.REFRESH,
    "synposter.accounts.v1.AccountService.Revoke": Permission.REVOKE,
    "synposter.accounts.v1.OperationsService.ExplainAccount": Permission.OPERATE,
    "grpc.health.v1.Health.Check": Access.OPEN,
    "grpc.health.v1.Health.List": Access.OPEN,
    "grpc.health.v1.Health.Watch": Access.OPEN,
    "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo": Access.ANY_CALLER,
}


class MethodWithoutPolicy(RuntimeError):
    """A method is served that nobody has decided about; the server must not start."""


class Policy:
    """Knows who calls, and what each method needs."""

    def __init__(self, credentials: Credentials, needs: Mapping[str, Need] = NEEDS) -> None:
        self._credentials = credentials
        self._needs = needs

    def need(self, method: str) -> Need:
        """What the method of this full name (`package.Service.Method`) needs. Raises MethodWithoutPolicy."""
        if method not in self._needs:
            raise MethodWithoutPolicy(f"{method} has no line in the policy table (server/rpc/guard.py)")
        return self._needs[method]

    def admit(self, context: Context, need: Need) -> Caller:
        """The caller behind a call, if the method is for it. Raises CallerUnknown, CallerNotPermitted."""
        if need is Access.OPEN:
            return NOBODY
        caller = self._credentials.caller(context)
        if need is not Access.ANY_CALLER and need not in caller.permissions:
            raise CallerNotPermitted(f"this call needs the permission {need.value}", permission=need.value)
        return caller


def guarded(
    behave: Callable[[Any, Caller], Awaitable[Message]], need: Need, admit: Admit, parse: Parse
) -> Callable[[bytes, Context], Awaitable[bytes]]:
    """Wraps a method that answers once.

    Parsing and serializing happen in here because grpcio answers a failure of its own serializers with UNKNOWN, and
    so that a request is not parsed for a stranger.
    """

    async def call(raw: bytes, context: Context) -> bytes:
        try:
            caller = admit(context, need)
            response = await behave(parse(raw), caller)
            return response.SerializeToString()
        except Exception as error:
            await refuse(context, error)

    return call


def guarded_stream(
    behave: Callable[[Any, Caller], AsyncIterable[Message]], need: Need, admit: Admit, parse: Parse
) -> Callable[[Any, Context], AsyncIterator[bytes]]:
    """Wraps a method that answers with a stream, whether it is asked once or by a stream."""

    async def call(raw: bytes | AsyncIterable[bytes], context: Context) -> AsyncIterator[bytes]:
        try:
            caller = admit(context, need)
            request = parse(raw) if isinstance(raw, bytes) else (parse(one) async for one in raw)
            async for response in behave(request, caller):
                yield response.SerializeToString()
        except Exception as error:
            await refuse(context, error)

    return call


def parser(message: type[Message]) -> Parse:
    """Reads requests of one type; the parse raises InvalidField for bytes that are none."""
    name, from_string = message.DESCRIPTOR.full_name, message.FromString

    def parse(raw: bytes) -> Message:
        try:
            return from_string(raw)
        except DecodeError:
            raise InvalidField("request", f"the bytes are no {name}") from None

    return parse


async def refuse(context: Context, error: Exception) -> NoReturn:
    """Ends the call with the error's status: the only place that does."""
    status = rpc_status.to_status(status_of(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
