"""Mirrors: a local dict of accounts that a watch keeps true."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from time import monotonic
from typing import Final, Self

import grpc

from synposter_accounts.errors import AccountsError, DeadlineExceeded, ServiceUnreachable
from synposter_accounts.model import Account, Change, Listing, News
from synposter_accounts.watching import AsyncWatch, Watch

log = logging.getLogger(__name__)

SILENCE_SECONDS: Final = 120.0
"""Heartbeats come every half minute, every minute at the least: after so long nobody knows what the accounts are."""

RETRY_SECONDS: Final = 10.0
"""Until it watches again after a refusal. An operator may mend it: a key is not known yet, a caller is blocked."""


class MirroredAccounts(Mapping[str, Account]):
    """Accounts by id, as they were told last. While they are not kept true, every look at them raises why.

    Refreshes are not told: `access_token_expire_time`, `last_refresh_time` and `update_time` are as of the last change.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._listed: set[str] = set()
        self._told_at = monotonic()
        self._error: Exception | None = ValueError("this mirror was not entered: use it in a `with`")

    def take(self, news: News) -> bool:
        """Says whether all accounts are known with it."""
        match news:
            case Listing():
                if news.begins:
                    self._listed = set()
                for account in news.accounts:
                    self._accounts[account.id] = account
                    self._listed.add(account.id)
                if news.complete:
                    # What is gone was deleted while nobody watched.
                    for account_id in self._accounts.keys() - self._listed:
                        del self._accounts[account_id]
            case Change(account=None):
                self._accounts.pop(news.account_id, None)
            case Change(account=Account() as account):
                self._accounts[account.id] = account
        is_whole = not isinstance(news, Listing) or news.complete
        if is_whole:
            self._told_at, self._error = monotonic(), None
        return is_whole

    def fail(self, error: Exception) -> None:
        log.warning("a mirror of accounts is not kept true: %s", error)
        self._error = error

    def leave(self) -> None:
        self._error = ValueError("this mirror was left, and is not kept true any more")

    def __getitem__(self, account_id: str) -> Account:
        return self._known()[account_id]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._known()))

    def __len__(self) -> int:
        return len(self._known())

    def items(self) -> ItemsView[str, Account]:
        """As they are now: what is deleted while somebody goes through them fails nobody."""
        return dict(self._known()).items()

    def values(self) -> ValuesView[Account]:
        """As `items`."""
        return dict(self._known()).values()

    def _known(self) -> dict[str, Account]:
        if (error := self._error) is not None:
            raise error.with_traceback(None)  # or the traceback of all looks before would go with it
        if (silence := monotonic() - self._told_at) > SILENCE_SECONDS:
            text = f"nothing was told of the accounts for {silence:.0f} s, so they may be others by now"
            raise ServiceUnreachable(text, code=grpc.StatusCode.UNAVAILABLE)
        return self._accounts


class Mirror(MirroredAccounts):
    """Kept true by a thread, from the entry of its `with` to the exit; at the entry it waits for all accounts."""

    def __init__(self, watch: Watch, timeout: float) -> None:
        super().__init__()
        self._watch = watch
        self._timeout = timeout
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="accounts-mirror", daemon=True)

    def _follow(self) -> None:
        try:
            while not self._watch.closed.is_set():
                try:
                    for news in self._watch:
                        if self.take(news):
                            self._ready.set()
                except AccountsError as error:
                    self.fail(error)
                    self._ready.set()
                    self._watch.closed.wait(RETRY_SECONDS)
        except Exception as error:  # ValueError where the client was closed
            self.fail(error)
        finally:
            self._ready.set()

    def __enter__(self) -> Self:
        """Raises AccountsError."""
        self._thread.start()
        try:
            if not self._ready.wait(self._timeout):
                raise late(self._timeout, self._watch.course.failure)
            self._known()
        except BaseException:
            self._watch.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()
        self._thread.join()
        self.leave()


class AsyncMirror(MirroredAccounts):
    """Kept true by a task, from the entry of its `async with` to the exit; at the entry it waits for all accounts."""

    def __init__(self, watch: AsyncWatch, timeout: float) -> None:
        super().__init__()
        self._watch = watch
        self._timeout = timeout
        self._ready = asyncio.Event()

    async def _follow(self) -> None:
        try:
            while not self._watch.closed.is_set():
                try:
                    async for news in self._watch:
                        if self.take(news):
                            self._ready.set()
                except AccountsError as error:
                    self.fail(error)
                    self._ready.set()
                    await asyncio.sleep(RETRY_SECONDS)
        except Exception as error:  # ValueError where the client was closed
            self.fail(error)
        finally:
            self._ready.set()

    async def __aenter__(self) -> Self:
        """Raises AccountsError."""
        self._task = asyncio.create_task(self._follow())
        try:
            async with asyncio.timeout(self._timeout):
                await self._ready.wait()
            self._known()
        except BaseException as error:
            failure = self._watch.course.failure
            await self._end()
            if isinstance(error, TimeoutError):
                raise late(self._timeout, failure) from None
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])  # whose cancellation must not hide one of who leaves
        self.leave()


def late(seconds: float, failure: AccountsError | None) -> DeadlineExceeded:
    why = "" if failure is None else f": {failure}"
    text = f"the accounts were not listed in {seconds:g} s{why}"
    return DeadlineExceeded(text, code=grpc.StatusCode.DEADLINE_EXCEEDED)
