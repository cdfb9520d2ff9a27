"""The ports of the domain: what it needs from the outside, as protocols that adapters fulfil.

`Store` is fulfilled by `storage.store`, `Platform` by `platforms.platform`, `Observer` by `telemetry`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from server.accounts.calls import Use, UseFailed
from server.accounts.chain import ChainPlace, ChainReport
from server.accounts.changes import Change, Mark
from server.accounts.events import Event, EventFilter, EventPage, Refusal
from server.accounts.flow import AuthorizationRequest, Endpoints, Failure, Phase
from server.accounts.grants import (
    AtHand,
    ClaimedGrant,
    ClaimedRevocation,
    Commit,
    GrantRecord,
    IdentityRead,
    NewGrant,
    Refreshed,
    Retry,
    TokenSet,
    UnreadReplies,
    UnreadReply,
)
from server.accounts.model import (
    Account,
    AccountFilter,
    Block,
    Erasure,
    Identity,
    Page,
    Pause,
    PlatformRules,
    Receipt,
    Secret,
    StatusReason,
)

NewId = Callable[[], str]


class Platform(Protocol):
    """One platform, as registered here. Its calls raise the `PlatformError`s and nothing else."""

    @property
    def rules(self) -> PlatformRules: ...

    @property
    def endpoints(self) -> Endpoints: ...

    def authorization_url(
        self, *, redirect_uri: str, scopes: Sequence[str], state: Secret, code_verifier: Secret
    ) -> str:
        """The URL to send the browser to (RFC 6749 section 4.1.1, RFC 7636 section 4.3)."""

    async def exchange(
        self, *, endpoints: Endpoints, code: Secret, code_verifier: Secret, redirect_uri: str, scopes: Sequence[str]
    ) -> TokenSet:
        """Exchanges an authorization code at the pinned token endpoint; `scopes` are those that were asked for.

        Raises GrantDead when the code is refused, else NotSent, PlatformRefused, OurFault, OutcomeUnknown.
        """

    async def refresh(self, token_set: TokenSet) -> TokenSet:
        """Sends one refresh request (RFC 6749 section 6) and reads its answer; never retries.

        Raises NotSent, PlatformRefused, OurFault, GrantDead, OutcomeUnknown.
        """

    def read_again(self, reply: Secret, token_set: TokenSet) -> TokenSet | None:
        """What an old answer to a refresh of `token_set` granted, as this version reads it; None if it cannot.

        How old it is nobody knows, so its access token counts as ended.
        """

    async def identify(self, token_set: TokenSet, endpoints: Endpoints | None = None) -> tuple[Identity, ...]:
        """Reads whose grant it is. Raises TokenRejected on 401, else NotSent, PlatformRefused, OutcomeUnknown."""

    async def revoke(self, token: Secret, endpoint: str) -> None:
        """Revokes one token (RFC 7009); returns when the platform says that it is not valid any more.

        Raises NotSent, PlatformRefused, OurFault, OutcomeUnknown; each may be tried again.
        """


class Observer(Protocol):
    """What operators see: the outcome of each piece of work, from closed sets of labels, without ids."""

    def refreshed(self, platform: str, outcome: str, seconds: float, lag: timedelta) -> None: ...

    def connected(self, platform: str, outcome: str) -> None: ...

    def revoked(self, platform: str, outcome: str) -> None: ...

    def refused(self, method: str, reason: str) -> None: ...

    def acted(self, platform: str, method: str, outcome: str, seconds: float) -> None: ...

    def cut_off(self, why: str) -> None:
        """A watcher was ended: it is "slow", its caller is "blocked"; or all of them were, since there is a "gap"."""


class Journal(Protocol):
    """Where the answer to a refresh goes that the database will not take: sealed, on disk, until it does."""

    @property
    def depth(self) -> int:
        """How many are waiting."""

    @property
    def ready(self) -> bool:
        """Whether it has room for what may come, as far as is known."""

    async def make_ready(self) -> None:
        """Sets room aside, unless it is ready. Raises OSError."""

    async def keep(self, entry: Refreshed | UnreadReply) -> None:
        """Returns when it is safe on disk. Raises OSError."""

    async def entries(self) -> list[tuple[str, Refreshed | UnreadReply]]:
        """What is waiting, oldest first, each with the name to erase it by. Raises OSError."""

    async def erase(self, name: str) -> None:
        """Raises OSError."""


class Store(Protocol):
    """The accounts database. All methods raise StoreUnavailable when it does not answer.

    Each write is one transaction, with its events in it. Secrets are sealed on the way in and opened on the way out.
    """

    in_doubt: list[ClaimedGrant]
    """What was claimed without an answer: it may count as sent, and whoever claimed it does not have it."""

    async def now(self) -> datetime:
        """The database's time: the one clock of leases, expiries and due times."""

    async def try_writing(self) -> None:
        """Writes a heartbeat if the last write was refused; does nothing otherwise."""

    # --- reading accounts

    async def account(self, account_id: str) -> Account | None: ...

    async def account_at_hand(self, account_id: str) -> tuple[Account, AtHand] | None:
        """An account and its newest token set, read together."""

    async def accounts(self, account_ids: Sequence[str]) -> tuple[Account, ...]: ...

    async def grant(self, grant_id: str) -> GrantRecord | None: ...

    async def token_set(self, grant_id: str) -> TokenSet | None:
        """The newest token set of a grant; None if it has none any more."""

    async def events_of(self, account_id: str, *, limit: int) -> tuple[Event, ...]:
        """The newest events of an account but for its uses, oldest first."""

    async def list_accounts(self, which: AccountFilter, *, after: str, size: int) -> Page:
        """At most `size` accounts with ids greater than `after`, in the order of their ids."""

    # --- changes of accounts

    async def newest_change(self) -> Mark:
        """The last change that is committed."""

    async def changes_since(self, mark: Mark, *, limit: int) -> tuple[Change, ...] | None:
        """Up to `limit` changes after the mark, in the order of their commits: none that commits later precedes them.

        None if some of them are gone, or the mark is none of this database.
        """

    async def recent_changes(self, *, limit: int) -> tuple[Change, ...]:
        """The newest changes, up to `limit`, none left out between them."""

    async def profile_digest(self, profile_id: str) -> str:
        """The keyed digest that a deletion of this profile leaves behind."""

    async def tell_ends(self, ahead: timedelta, *, limit: int) -> int:
        """Records EXPIRING_SOON once for each grant that cannot be refreshed and ends within `ahead`.

        How many grants were looked at; call it again until it is 0.
        """

    # --- connecting

    async def add_request(
        self, request: AuthorizationRequest, *, of_caller: int | None = None, of_profile: int | None = None
    ) -> str:
        """Stores it, unless so many of its caller or profile have not ended yet: then "caller" or "profile"."""

    async def request(self, connect_id: str) -> AuthorizationRequest | None: ...

    async def awaited_request(self, state_hash: bytes) -> AuthorizationRequest | None:
        """One that waits for its answer at our own callback: BEGUN and not expired."""

    async def request_by_state(self, state_hash: bytes) -> AuthorizationRequest | None: ...

    async def request_by_completion_code(self, completion_code_hash: bytes) -> AuthorizationRequest | None: ...

    async def answer_request(self, connect_id: str, *, code: Secret, completion_code_hash: bytes,
                             completion_expire_time: datetime) -> bool:  # fmt: skip
        """BEGUN to ANSWERED, if it is BEGUN and not expired; says whether it was. Its state is forgotten."""

    async def start_exchange(self, connect_id: str, *, expected: Phase) -> bool:
        """`expected` (BEGUN or ANSWERED) to EXCHANGING, and the code is erased; says whether it was as expected."""

    async def keep_exchanged(self, request: AuthorizationRequest, token_set: TokenSet) -> bool:
        """Keeps the new grant's tokens, sealed, with the request, so that they can be revoked if we die now.

        False: the request was given up or even forgotten meanwhile, and they are in the revocation outbox already.
        """

    async def fail_request(self, connect_id: str, failure: Failure, *, expected: Sequence[Phase]) -> bool:
        """One of `expected` to FAILED. A token set kept with it moves to the revocation outbox. Says whether it did."""

    async def complete_request(self, request: AuthorizationRequest, grant: NewGrant) -> tuple[Account, ...] | None:
        """EXCHANGING to DONE, with the accounts created or renewed; None if it was not EXCHANGING any more."""

    async def sweep_requests(self, *, limit: int) -> int:
        """Fails exchanges that never ended, erases requests whose outcome is not told any more; how many."""

    # --- refreshing

    async def free_dead_leases(self) -> int:
        """Ends the leases of processes that cannot be alive any more; how many. Only a store of one process can say."""

    async def claim_due(
        self, platform: str, *, owner: str, lease: timedelta, limit: int, first_sends_only: bool = False
    ) -> list[ClaimedGrant]:
        """Makes up to `limit` due refreshable grants ours, soonest due first, in one durable commit.

        `first_sends_only` leaves out those whose refresh token may have reached the platform before.
        """

    async def claim_grants(
        self, grant_ids: Sequence[str], *, owner: str, lease: timedelta, min_interval: timedelta | None, caller: str
    ) -> list[ClaimedGrant]:
        """Makes those of the named refreshable grants ours that are due, or ready and `min_interval` old.

        A grant that failed before waits for its due time. `min_interval` None takes all that nobody else has. `caller`
        is who asks.
        """

    async def commit_refresh(self, refreshed: Refreshed) -> Commit:
        """Stores a new token set if the generation spent is still the newest; safe to repeat."""

    async def release(self, claimed: ClaimedGrant, retry: Retry, *, error: str, reply: bytes = b"") -> bool:
        """Gives a claimed grant back without a new token set; says whether it was still ours.

        `error` is the platform's answer in words, without secrets; `reply` an unreadable one, which is kept sealed.
        """

    async def keep_unread(self, unread: UnreadReply) -> None:
        """Keeps it sealed with its grant, unless that has a newer token set or is gone."""

    async def use_candidate(self, claimed: ClaimedGrant) -> bool:
        """Makes the grant's parked candidate its token set, due at once; False if there is none."""

    async def expire_grant(self, claimed: ClaimedGrant, reason: StatusReason, *, error: str) -> bool:
        """The grant is dead and its accounts EXPIRED, if the generation spent is still the newest and it is ours."""

    async def expire_ended(self, platform: str, *, limit: int) -> int:
        """Grants without a refresh token whose access token has ended: dead, NOT_REFRESHABLE. How many."""

    # --- reading identities again

    async def claim_identity_due(self, platform: str, *, retry: timedelta, limit: int) -> list[IdentityRead]:
        """Live grants whose identity is to be read again; should we die, they come again after `retry`."""

    async def update_identity(self, grant_id: str, identity: Identity, *, due_time: datetime) -> bool:
        """Stores handle, name and avatar of the grant's account of that platform user; says whether any changed."""

    async def refresh_now(self, grant_id: str, generation: int) -> None:
        """Makes a ready grant of that generation due at once, because its access token was refused."""

    # --- revoking

    async def revoke_account(self, account_id: str, *, caller: str, supported: bool, ends_user_grant: bool) -> Account:
        """The account is REVOKED; its tokens are in the outbox, or erased where there is nothing to send.

        `supported` and `ends_user_grant` are the platform's rules. An account that is REVOKED already is unchanged.
        """

    async def claim_revocations(
        self, platform: str, *, lease: timedelta, limit: int, account_id: str | None = None
    ) -> list[ClaimedRevocation]:
        """Makes due entries of the outbox ours, of one account where it is named."""

    async def finish_revocation(self, claimed: ClaimedRevocation) -> None:
        """The platform has confirmed: the tokens are erased, and the account says so once none of its are left."""

    async def retry_revocation(self, claimed: ClaimedRevocation, *, due_time: datetime, error: str) -> bool:
        """Leaves it for later; says whether that was so often and for so long in vain that its tokens are erased.

        The account then says GIVEN_UP, and stays REVOKED.
        """

    # --- operating

    async def unread(self) -> tuple[UnreadReplies, ...]:
        """The grants with answers that nobody could read; one whose sealed values do not open is left out."""

    async def pauses(self) -> tuple[Pause, ...]:
        """What operators last said about platforms."""

    async def set_pause(self, platform: str, *, reason: str, operator: str) -> None:
        """Pauses a platform for all processes; an empty reason lets it go on."""

    async def blocks(self) -> tuple[Block, ...]:
        """What operators last said about callers."""

    async def set_block(self, caller: str, *, reason: str, operator: str) -> None:
        """Blocks a caller for all processes; an empty reason lets it in again."""

    # --- the audit

    async def record_refusals(self, refusals: Sequence[Refusal]) -> None:
        """An event for each, in one transaction."""

    async def record_use(self, use: Use) -> None:
        """Records a use that is about to be sent. Those that are recorded at the same time share a commit.

        Raises AccountNotFound, AccountRevoked for an account that was erased or revoked meanwhile.
        """

    async def record_use_failed(self, failed: UseFailed) -> None: ...

    async def list_events(self, which: EventFilter, *, after: str, size: int) -> EventPage:
        """At most `size` events, the newest first; `after` is the `audit.cursor` of the last one seen, or empty."""

    async def link_events(self, *, owner: str, lease: timedelta, limit: int) -> int:
        """Links up to `limit` committed events into the hash chain, oldest first; how many.

        0 also while another owner holds the lease. An event is linked once, also one that was committed late.
        """

    async def verify_chain(self, noted: ChainPlace | None = None) -> ChainReport:
        """Walks the whole chain in one snapshot; `noted` is a link that was noted elsewhere and must still be there."""

    # --- erasing

    async def begin_erasure(self, profile_id: str, *, caller: str) -> Erasure:
        """Notes that the profile is to be erased, and ends its connects; the same erasure for the same profile."""

    async def erase_account(self, account_id: str, erasure: Erasure, *, supported: bool, ends_user_grant: bool) -> None:
        """As `revoke_account`, and the account is gone; the receipt has it. One that is gone already is left alone."""

    async def erase_traces(self, erasure: Erasure) -> bool:
        """Whatever else names the profile: requests, the outbox, events; says whether to call it again."""

    async def open_erasures(self, *, limit: int) -> list[Erasure]:
        """Those that were interrupted, and those that may be settled by now, the oldest first."""

    async def settle_erasure(self, erasure: Erasure) -> bool:
        """Forgets the profile's id, unless something may be left or the erasure began anew; says whether it did."""

    async def receipt(self, erasure_id: str) -> Receipt: ...

    async def wipe(self) -> None:
        """Old copies of what was erased go too, as far as this is a matter of the database."""

    async def erase_revoked(self, *, before: datetime, limit: int) -> int:
        """Erases accounts that were revoked before then, unless a revocation is pending; how many."""

    async def prune_audit(self, *, before: datetime, limit: int) -> int:
        """Erases the oldest linked events, if they are from before then, and receipts as old; how many events."""
