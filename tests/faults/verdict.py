"""Where each grant stood when the server died, what must become of it, and what did.

Losing a grant is allowed in one case: the platform had rotated and no disk of ours had the new token set.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from synposter_accounts import Account, AccountStatus, StatusReason

from server.accounts.grants import GrantState, TokenSet
from tests.faults.remains import StoredGrant

LedgerGrant = Mapping[str, Any]


class Saved(Enum):
    """Where the token set was found that the platform rotated to."""

    NOWHERE = "nowhere"
    JOURNAL = "journal"
    ROW = "row"


@dataclass(frozen=True)
class AtDeath:
    """How far the refresh of one grant had come."""

    claimed: bool
    sent: bool
    rotated: bool
    saved: Saved

    @property
    def unavoidable_loss(self) -> bool:
        return self.rotated and self.saved is Saved.NOWHERE

    @property
    def may_send_again(self) -> bool:
        """It was sent, and what came of it is on no disk: one more try is allowed."""
        return self.sent and self.saved is Saved.NOWHERE

    @property
    def point(self) -> str:
        """K3 stands for K4 too: what the process had read is not to be seen on a disk."""
        if self.rotated:
            return {Saved.NOWHERE: "K3", Saved.JOURNAL: "K5", Saved.ROW: "K6"}[self.saved]
        if self.sent:
            return "K2"
        return "K1" if self.claimed else "K0"


def at_death(
    before: LedgerGrant,
    ledger: LedgerGrant,
    row: StoredGrant,
    journaled: TokenSet | None,
    requests: Sequence[Mapping[str, Any]],
) -> AtDeath:
    rotated = ledger["refreshes"] > before["refreshes"]
    saved = Saved.NOWHERE  # before a rotation there is nothing to save: the live token set is the old one
    if rotated and holds(row.token_set, ledger):
        saved = Saved.ROW
    elif rotated and journaled is not None and holds(journaled, ledger):
        saved = Saved.JOURNAL
    return AtDeath(
        claimed=row.state is not GrantState.READY or saved is Saved.ROW,
        sent=any(each.get("grant_id") == ledger["id"] for each in requests),
        rotated=rotated,
        saved=saved,
    )


def holds(stored: TokenSet, ledger: LedgerGrant) -> bool:
    """Whether a stored token set is the live one."""
    refresh_token = stored.refresh_token.reveal() if stored.refresh_token else None
    return (stored.access_token.reveal(), refresh_token) == (ledger["access_token"], ledger["refresh_token"])


class Fate(Enum):
    KEPT = "kept"
    LOST = "lost"
    WRONGLY_LOST = "wrongly lost"
    SILENTLY_DEAD = "silently dead"
    WRONG = "wrong"
    """Neither lost nor as it must be; `judge` says why."""


def judge(
    death: AtDeath | None,
    before: LedgerGrant,
    ledger: LedgerGrant,
    row: StoredGrant,
    account: Account,
    requests: Sequence[Mapping[str, Any]],
) -> tuple[Fate, str]:
    """What became of a grant, and what is wrong with that. `death` is None for one that met no kill.

    `requests` are all refreshes since `before`.
    """
    may_be_lost = death is not None and death.unavoidable_loss
    active = account.status is AccountStatus.ACTIVE
    replays = ledger["replays"] - before["replays"]
    sends = Counter(each["sent"] for each in requests if each["grant_id"] == before["id"])
    most_sends = max(sends.values(), default=0)
    allowed = 2 if death is not None and death.may_send_again else 1
    if active and (not ledger["alive"] or not holds(row.token_set, ledger)):
        return Fate.SILENTLY_DEAD, "ACTIVE without the live token set"
    if not active and not may_be_lost:
        return Fate.WRONGLY_LOST, f"{account.status.name} {account.status_reason.name} without need"
    wrongs = {
        "another grant took its place": ledger["id"] != before["id"],
        f"{replays} replays": replays > may_be_lost,
        f"a refresh token was sent {most_sends} times": most_sends > allowed,
        "a pair was parked, and nobody else was there to overtake it": row.has_candidate,
        f"lost as {account.status.name} {account.status_reason.name}": not active and not is_told(account),
    }
    if wrong := ", ".join(text for text, holds_true in wrongs.items() if holds_true):
        return Fate.WRONG, wrong
    return (Fate.KEPT if active else Fate.LOST), ""


def is_told(account: Account) -> bool:
    """Whether a lost account says that it is lost, and why."""
    return (account.status, account.status_reason) == (AccountStatus.EXPIRED, StatusReason.REFRESH_OUTCOME_LOST)
