"""The watchers of a process: how many there may be, and whom a change concerns."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

from server.accounts.callers import Caller
from server.accounts.changes import TOLD, Change, View
from server.accounts.errors import RateLimited
from server.accounts.watcher import Watcher

TRY_AGAIN: Final = timedelta(seconds=5)


class Watchers:
    """All that watch now, by the profile that they watch; None is all profiles."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_profile: dict[str | None, set[Watcher]] = {}
        self._of_caller: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._of_caller.total()

    @property
    def callers(self) -> list[str]:
        return list(self._of_caller)

    def all(self) -> list[Watcher]:
        return [watcher for some in self._of_profile.values() for watcher in some]

    @contextlib.contextmanager
    def admitted(self, view: View) -> Iterator[Watcher]:
        """A new one, for as long as it watches. Raises RateLimited."""
        caller = view.caller
        self._check_room(caller)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (whoever watches is in a task)
        watcher = Watcher(view, task)
        self._of_profile.setdefault(view.profile_id, set()).add(watcher)
        self._of_caller[caller.name] += 1
        try:
            yield watcher
        finally:
            self._dismiss(watcher)

    def concerned(self, change: Change) -> Iterable[Watcher]:
        """Those that may have to be told; all, where nobody knows whose account it was."""
        if change.kind not in TOLD:
            return ()
        profile_id = change.profile_id if change.account is None else change.account.profile_id
        if not profile_id:
            return self.all()
        return (*self._of_profile.get(None, ()), *self._of_profile.get(profile_id, ()))

    def _check_room(self, caller: Caller) -> None:
        most = caller.limits.watchers
        if most is not None and self._of_caller[caller.name] >= most:
            raise RateLimited("over the caller's limit watchers", TRY_AGAIN, limit="watchers")
        if len(self) >= self._most:
            raise RateLimited("the process has as many watchers as it may", TRY_AGAIN, limit="all_watchers")

    def _dismiss(self, watcher: Watcher) -> None:
        profile_id, name = watcher.view.profile_id, watcher.view.caller.name
        self._of_profile[profile_id].remove(watcher)
        if not self._of_profile[profile_id]:
            del self._of_profile[profile_id]
        self._of_caller[name] -= 1
        if not self._of_caller[name]:
            del self._of_caller[name]
