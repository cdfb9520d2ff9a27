"""The wrapper around each method: it enforces the policy, keeps time, and answers errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from traceback import clear_frames
from typing import Any, Final, NoReturn

from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from server.accounts.audit import ORIGIN
from server.accounts.background import Background
from server.accounts.callers import Caller
from server.accounts.errors import InvalidField
from server.accounts.limits import CallerLimits
from server.accounts.watcher import CutOff
from server.rpc.credentials import Context
from server.rpc.errors import DeadlineTooShort, RequestTooLarge, StreamCutOff, status_of
from server.rpc.messages import Encoded
from server.rpc.origin import CallOrigin
from server.rpc.policy import NOBODY, Line, Method, Parse, Policy

LEAST_SECONDS: Final = 0.1
"""What a call must have left of its deadline, or nothing is begun: its answer would come too late."""
DEFAULT_SECONDS: Final = 30.0
"""What a call without a deadline gets. gRPC itself ends the others in time."""


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
        metadata = tuple(context.invocation_metadata() or ())
        caller, origin, turn = NOBODY, CallOrigin(context, metadata), None
        ORIGIN.set(origin)
        try:
            caller = policy.caller(context, metadata, line)
            limits = policy.admit(caller, line)
            left = context.time_remaining()
            if left is not None and left < LEAST_SECONDS:
                raise DeadlineTooShort(f"a call needs {LEAST_SECONDS * 1000:.0f} ms to begin; it had {left * 1000:.0f}")
            request = parse(raw)
            if shows and limits.turn is not None:
                await (in_time(limits.turn.acquire()) if left is None else limits.turn.acquire())
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
            refusal = refusal_of(error)
        finally:
            if turn is not None:
                turn.release()
        raw, request = b"", None
        return await refuse(context, refusal)

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
        metadata = tuple(context.invocation_metadata() or ())
        caller, origin = NOBODY, CallOrigin(context, metadata)
        ORIGIN.set(origin)
        try:
            caller = policy.caller(context, metadata, line)
            limits = policy.admit(caller, line)
            request = parse(raw) if isinstance(raw, bytes) else (parse(one) async for one in raw)
            # Closed here and now: a caller that is gone leaves nothing behind.
            async with aclosing(behave(request, caller)) as responses:
                async for response in responses:
                    await context.write(encoded(response, line, limits))
        except asyncio.CancelledError as cancelled:
            cut_offs = [each for each in cancelled.args if isinstance(each, CutOff)]
            if not cut_offs:
                raise
            why = cut_offs[0].error or StreamCutOff("the stream was not read")
            policy.refused(method, caller, origin, raw, why)
            refusal = refusal_of(why)
        except Exception as error:
            policy.refused(method, caller, origin, raw, error)
            refusal = refusal_of(error)
        else:
            return
        raw, request = b"", None
        await refuse(context, refusal)

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


def refusal_of(error: Exception) -> Any:
    """The status that says it. What the error's frames hold is let go of: a task that failed and its error hold each
    other, and a request of 8 MiB with them, until the garbage collector comes."""
    refusal = rpc_status.to_status(status_of(error))
    clear_frames(error.__traceback__)
    return refusal


async def refuse(context: Context, refusal: Any) -> NoReturn:
    """Ends the call: the only place that does. Outside of any `except`, and when the caller's frame holds no request
    any more: grpc keeps the exception of an abort in a circle with the call, and with it all that the exception holds.
    """
    await context.abort(refusal.code, refusal.details, refusal.trailing_metadata)
