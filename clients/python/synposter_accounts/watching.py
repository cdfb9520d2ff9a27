"""Watching: where a watch is, what it is told, and when it may try again; shared by both clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from typing import Any, Final, Self

import grpc
import grpc.aio
from synposter.accounts.v1 import account_service_pb2 as pb

from synposter_accounts.errors import AccountsError, RateLimited, ResumeTokenTooOld, StoreUnavailable, from_rpc, told
from synposter_accounts.model import News, to_news

log = logging.getLogger(__name__)

LEAST_SECONDS: Final = 0.1
MOST_SECONDS: Final = 10.0
ON_THE_WAY: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
"""What a cut connection looks like, where the service gave no reason. A watch has no deadline, but a proxy may have."""


class Course:
    """Where a watch is. `request` goes on behind what was read last."""

    def __init__(self, profile_id: str | None, platform: str | None, resume_token: str) -> None:
        self.request = pb.WatchAccountsRequest(
            profile_id=profile_id or "", platform=platform or "", resume_token=resume_token
        )
        self.failure: AccountsError | None = None
        """Why it is told nothing right now, as far as that is known."""
        self._begins = not resume_token
        self._failures = 0

    def read(self, response: pb.WatchAccountsResponse) -> News:
        self._failures, self.failure = 0, None
        self.request.resume_token = response.resume_token
        begins, self._begins = self._begins, False
        return to_news(response, begins=begins)

    def seconds_to_wait(self, error: AccountsError | None) -> float:
        """Before the next call; `error` is None where the stream ended by itself. Raises it if it is for good."""
        self.failure = error
        if isinstance(error, ResumeTokenTooOld) and self.request.resume_token:
            self.request.resume_token, self._begins = "", True
            return 0.0
        if error is not None and not passes(error):
            raise error
        backoff = min(MOST_SECONDS, LEAST_SECONDS * (1 << min(self._failures, 10)))
        self._failures += 1
        asked = error.retry_after if error is not None else None
        least = asked.total_seconds() if asked is not None else 0.0
        wait = least + backoff * (0.5 + random.random() / 2)  # noqa: S311 (spreads load; guards nothing)
        if error is not None:
            # The service itself cuts connections every half hour: once is no news.
            level = logging.INFO if self._failures == 1 else logging.WARNING
            log.log(level, "a watch broke off, and goes on in %.1f s: %s", wait, error)
        return wait


def passes(error: AccountsError) -> bool:
    """Whether it may go better the next time."""
    if isinstance(error, StoreUnavailable | RateLimited):
        return True
    return not error.reason and error.code in ON_THE_WAY


class Watch:
    """An endless iterator of news, which reconnects and resumes by itself; `close` ends it, from any thread too."""

    def __init__(self, method: Any, metadata: Any, course: Course) -> None:
        self._method = method
        self._metadata = metadata
        self.course = course
        self.closed = threading.Event()
        self._call: Any = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> News:
        """Raises AccountsError where it cannot go on."""
        while not self.closed.is_set():
            error = None
            try:
                if self._call is None:
                    self._call = self._method(self.course.request, metadata=self._metadata)
                    if self.closed.is_set():  # after the loop looked, and before there was a call to cancel
                        self._call.cancel()
                return self.course.read(next(self._call))
            except StopIteration:
                pass
            except grpc.RpcError as failed:
                error = from_rpc(failed)
            self._call = None
            if not self.closed.is_set():
                self.closed.wait(self.course.seconds_to_wait(error))
        raise StopIteration

    def close(self) -> None:
        self.closed.set()
        if (call := self._call) is not None:
            call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncWatch:
    """As `Watch`, for asyncio: also whoever gave up waiting for the next piece of news may ask for it again."""

    def __init__(self, method: Any, metadata: Any, course: Course) -> None:
        self._method = method
        self._metadata = metadata
        self.course = course
        self.closed = asyncio.Event()
        self._call: Any = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> News:
        """Raises AccountsError where it cannot go on."""
        while not self.closed.is_set():
            error = None
            try:
                with told():
                    if self._call is None:
                        self._call = self._method(self.course.request, metadata=self._metadata)
                    response = await self._call.read()
                    if response is not grpc.aio.EOF:  # type: ignore[attr-defined]  # its stubs lack it
                        return self.course.read(response)
            except AccountsError as failed:
                error = failed
            except asyncio.CancelledError:
                self._call = None  # gRPC has given it up: the next one goes on behind what was read last
                raise
            self._call = None
            if not self.closed.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.course.seconds_to_wait(error)):
                        await self.closed.wait()
        raise StopAsyncIteration

    async def close(self) -> None:
        self.closed.set()
        if (call := self._call) is not None:
            call.cancel()

    aclose = close
    """As contextlib.aclosing has it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __del__(self) -> None:
        if self._call is not None:
            self._call.cancel()  # gRPC keeps a call until it ends, and a watch has no end of its own
