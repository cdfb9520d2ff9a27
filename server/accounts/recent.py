"""The newest changes, in memory: what all watchers of a process are told from, each from its own place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from server.accounts.changes import BEGINNING, Change, Mark


class Recent:
    """The last `most` changes, by number, without a gap between them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changes: dict[int, Change] = {}
        self.newest = BEGINNING
        self._oldest = 1

    def begin(self, newest: Mark, changes: Iterable[Change]) -> None:
        """Forgets what it knows; `changes` are the last ones up to `newest`."""
        self._changes = {change.mark.number: change for change in changes}
        self.newest = newest
        self._oldest = newest.number - len(self._changes) + 1

    def add(self, change: Change) -> None:
        """The one that follows the newest. Of an account that was erased nothing else is known any more."""
        if change.erases:
            self._forget(change.account_id)
        self._changes[change.mark.number] = change
        self.newest = change.mark
        if len(self._changes) > self._most:
            del self._changes[self._oldest]
            self._oldest += 1

    def holds(self, mark: Mark) -> bool:
        """Whether that change is among them, or the newest."""
        if mark == self.newest:
            return True
        change = self._changes.get(mark.number)
        return change is not None and change.mark == mark

    def reaches(self, mark: Mark) -> bool:
        """Whether all that follows the mark is here, as far as it is known."""
        return mark.number >= self._oldest - 1

    def after(self, mark: Mark) -> Change | None:
        """The change that follows; None if there is none yet, or if `reaches` does not hold."""
        return self._changes.get(mark.number + 1)

    def _forget(self, account_id: str) -> None:
        for number, change in self._changes.items():
            if change.account is not None and change.account_id == account_id:
                self._changes[number] = replace(change, account=None)
