"""The store: fulfils the domain's `Store` port over an engine, a vault and the SQL of the modules beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from peewee import Database

from server.accounts.audit import NOWHERE, ORIGIN, Origin
from server.accounts.callers import as_caller
from server.accounts.calls import Use, UseFailed
from server.accounts.chain import ChainPlace, ChainReport
from server.accounts.changes import Change, Mark
from server.accounts.errors import AccountError, AccountNotFound, StoreUnavailable
from server.accounts.events import Event, EventFilter, EventKind, EventPage, Refusal
from server.accounts.flow import AuthorizationRequest, Failure, Phase
from server.accounts.grants import (
    AtHand,
    ClaimedGrant,
    ClaimedRevocation,
    Commit,
    GrantRecord,
    GrantState,
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
    Receipt,
    Secret,
    StatusReason,
)
from server.storage import (
    accounts,
    audit,
    changes,
    claims,
    erase,
    grants,
    identities,
    operating,
    requests,
    restored,
    revocations,
    unread,
    uses,
)
from server.storage.engine import Engine
from server.storage.gathered import Gathered
from server.storage.restored import GoneBack, Suspects
from server.storage.schema import RequestRow, SecretRow
from server.storage.statement import Statements
from server.storage.transaction import Served, Transaction, micros
from server.storage.vault import Vault

T = TypeVar("T")


class Store:
    """See `server.accounts.ports.Store` for what each method promises."""

    def __init__(self, engine: Engine, vault: Vault, new_id: Callable[[], str]) -> None:
        self._engine = engine
        self._vault = vault
        self._new_id = new_id
        self.clock = engine.clock
        self._statements = Statements()
        self._takes_writes = True
        self.in_doubt: list[ClaimedGrant] = []
        self.on_change: Callable[[], None] = lambda: None
        """Called after each commit of this process that changes an account."""
        self._served = Served()
        self._refreshes = Gathered(self._commit_refreshes)
        self._uses = Gathered(self._record_uses, patience=uses.PATIENCE_SECONDS)

    async def now(self) -> datetime:
        return self.clock()

    async def ping(self) -> None:
        """Returns if the database answers, takes writes and has not gone back, as far as is known.

        Raises StoreUnavailable.
        """
        if self.gone_back:
            raise GoneBack(self.gone_back)
        await self._engine.read(lambda database: database.execute_sql("SELECT value FROM counters").fetchone())
        await self.try_writing()

    async def try_writing(self) -> None:
        if not self._takes_writes:
            await self._write(operating.beat)

    async def page_token_key(self) -> bytes:
        """The 32 bytes that page tokens are sealed with; made by the first migration."""
        row = await self._read(lambda tx: SecretRow.select().where(SecretRow.name == "page_token_key").get(tx.database))
        return self._vault.open(bytes(row.sealed), ("secrets", "sealed", "page_token_key"))

    # --- reading accounts

    async def account(self, account_id: str) -> Account | None:
        return await self._engine.read(lambda database: accounts.get(database, self._statements, account_id))

    async def account_at_hand(self, account_id: str) -> tuple[Account, AtHand] | None:
        return await self._engine.read(
            lambda database: grants.at_hand(database, self._statements, self._vault, account_id)
        )

    async def accounts(self, account_ids: Sequence[str]) -> tuple[Account, ...]:
        return await self._engine.read(lambda database: accounts.several(database, self._statements, account_ids))

    async def grant(self, grant_id: str) -> GrantRecord | None:
        return await self._read(lambda tx: grants.record(tx, grant_id))

    async def token_set(self, grant_id: str) -> TokenSet | None:
        return await self._read(lambda tx: grants.newest(tx, grant_id))

    async def events_of(self, account_id: str, *, limit: int) -> tuple[Event, ...]:
        return await self._read(lambda tx: operating.events_of(tx, account_id, limit))

    async def list_accounts(self, which: AccountFilter, *, after: str, size: int) -> Page:
        # Of one profile it costs an index look; of all, a filter that nothing matches makes it read every row.
        look = self._engine.survey if which.profile_id is None else self._engine.read
        return await look(
            lambda database: accounts.list_page(database, self._statements, which, after=after, size=size)
        )

    # --- changes of accounts

    async def newest_change(self) -> Mark:
        return await self._read(changes.newest)

    async def changes_since(self, mark: Mark, *, limit: int) -> tuple[Change, ...] | None:
        return await self._read(lambda tx: changes.since(tx, mark, limit))

    async def recent_changes(self, *, limit: int) -> tuple[Change, ...]:
        return await self._read(lambda tx: changes.recent(tx, limit))

    async def profile_digest(self, profile_id: str) -> str:
        return await self._read(lambda tx: erase.digest(tx, profile_id))

    async def tell_ends(self, ahead: timedelta, *, limit: int) -> int:
        if not await self._read(lambda tx: changes.any_ends_soon(tx, ahead)):
            return 0
        return await self._write(lambda tx: changes.tell_ends(tx, ahead, limit))

    # --- connecting

    async def add_request(
        self, request: AuthorizationRequest, *, of_caller: int | None = None, of_profile: int | None = None
    ) -> str:
        return await self._write(lambda tx: requests.add(tx, request, of_caller, of_profile))

    async def request(self, connect_id: str) -> AuthorizationRequest | None:
        return await self._read(lambda tx: requests.find(tx, RequestRow.id == connect_id))

    async def awaited_request(self, state_hash: bytes) -> AuthorizationRequest | None:
        return await self._read(lambda tx: requests.awaited(tx, state_hash))

    async def request_by_state(self, state_hash: bytes) -> AuthorizationRequest | None:
        return await self._read(lambda tx: requests.find(tx, RequestRow.state_hash == state_hash))

    async def request_by_completion_code(self, completion_code_hash: bytes) -> AuthorizationRequest | None:
        return await self._read(lambda tx: requests.find(tx, RequestRow.completion_code_hash == completion_code_hash))

    async def answer_request(
        self, connect_id: str, *, code: Secret, completion_code_hash: bytes, completion_expire_time: datetime
    ) -> bool:
        return await self._write(
            lambda tx: requests.answer(tx, connect_id, code, completion_code_hash, completion_expire_time)
        )

    async def start_exchange(self, connect_id: str, *, expected: Phase) -> bool:
        return await self._write(lambda tx: requests.start_exchange(tx, connect_id, expected))

    async def keep_exchanged(self, request: AuthorizationRequest, token_set: TokenSet) -> bool:
        return await self._write(lambda tx: requests.keep_exchanged(tx, request, token_set))

    async def fail_request(self, connect_id: str, failure: Failure, *, expected: Sequence[Phase]) -> bool:
        return await self._write(lambda tx: requests.fail(tx, connect_id, failure, expected))

    async def complete_request(self, request: AuthorizationRequest, grant: NewGrant) -> tuple[Account, ...] | None:
        account_ids = await self._write(lambda tx: requests.complete(tx, request, grant))
        return None if account_ids is None else await self.accounts(account_ids)

    async def sweep_requests(self, *, limit: int) -> int:
        return await self._write(lambda tx: requests.sweep(tx, limit))

    # --- refreshing

    async def free_dead_leases(self) -> int:
        return await self._write(claims.free_dead_leases)

    async def claim_due(
        self, platform: str, *, owner: str, lease: timedelta, limit: int, first_sends_only: bool = False
    ) -> list[ClaimedGrant]:
        if not await self._read(lambda tx: claims.any_due(tx, platform, refreshable=True)):
            return []
        return await self._claim(lambda tx: claims.claim_due(tx, platform, owner, lease, limit, first_sends_only))

    async def claim_grants(
        self, grant_ids: Sequence[str], *, owner: str, lease: timedelta, min_interval: timedelta | None, caller: str
    ) -> list[ClaimedGrant]:
        return await self._claim(lambda tx: claims.claim_these(tx, grant_ids, owner, lease, min_interval, caller))

    async def _claim(self, claim: Callable[[Transaction], list[ClaimedGrant]]) -> list[ClaimedGrant]:
        claimed: list[ClaimedGrant] = []

        def run(tx: Transaction) -> None:
            claimed[:] = claim(tx)  # it may run more than once

        try:
            await self._write(run)
        except StoreUnavailable:
            # Who takes over a claim that was never ended adds no send.
            self.in_doubt += [each for each in claimed if each.found is not GrantState.SENT]
            raise
        return claimed

    async def commit_refresh(self, refreshed: Refreshed) -> Commit:
        return await self._refreshes.put(refreshed)

    async def _commit_refreshes(self, group: Sequence[Refreshed]) -> list[Commit]:
        return await self._write(lambda tx: grants.commit_refreshes(tx, group))

    async def release(self, claimed: ClaimedGrant, retry: Retry, *, error: str, reply: bytes = b"") -> bool:
        return await self._write(lambda tx: grants.release(tx, claimed, retry, error, reply))

    async def keep_unread(self, unread: UnreadReply) -> None:
        await self._write(lambda tx: grants.keep_unread(tx, unread))

    async def use_candidate(self, claimed: ClaimedGrant) -> bool:
        return await self._write(lambda tx: grants.use_candidate(tx, claimed))

    async def expire_grant(self, claimed: ClaimedGrant, reason: StatusReason, *, error: str) -> bool:
        return await self._write(lambda tx: grants.expire_grant(tx, claimed, reason, error))

    async def expire_ended(self, platform: str, *, limit: int) -> int:
        if not await self._read(lambda tx: claims.any_due(tx, platform, refreshable=False)):
            return 0
        return await self._write(lambda tx: claims.expire_ended(tx, platform, limit))

    # --- reading identities again

    async def claim_identity_due(self, platform: str, *, retry: timedelta, limit: int) -> list[IdentityRead]:
        if not await self._read(lambda tx: identities.any_identity_due(tx, platform)):
            return []
        return await self._write(lambda tx: identities.claim_identity_due(tx, platform, retry, limit))

    async def update_identity(self, grant_id: str, identity: Identity, *, due_time: datetime) -> bool:
        def update(tx: Transaction) -> bool:
            identities.set_identity_due(tx, grant_id, micros(due_time))
            return accounts.update_identity(tx, grant_id, identity)

        return await self._write(update)

    async def refresh_now(self, grant_id: str, generation: int) -> None:
        await self._write(lambda tx: identities.refresh_now(tx, grant_id, generation))

    # --- revoking

    async def revoke_account(self, account_id: str, *, caller: str, supported: bool, ends_user_grant: bool) -> Account:
        await self._write(lambda tx: revocations.revoke_account(tx, account_id, caller, supported, ends_user_grant))
        account = await self.account(account_id)
        if account is None:
            raise AccountNotFound(account_id)
        return account

    async def claim_revocations(
        self, platform: str, *, lease: timedelta, limit: int, account_id: str | None = None
    ) -> list[ClaimedRevocation]:
        if not await self._read(lambda tx: revocations.any_due(tx, platform)):
            return []
        return await self._write(lambda tx: revocations.claim(tx, platform, lease, limit, account_id))

    async def finish_revocation(self, claimed: ClaimedRevocation) -> None:
        await self._write(lambda tx: revocations.finish(tx, claimed.id))

    async def retry_revocation(self, claimed: ClaimedRevocation, *, due_time: datetime, error: str) -> bool:
        return await self._write(lambda tx: revocations.retry(tx, claimed.id, micros(due_time), error))

    # --- operating

    async def unread(self) -> tuple[UnreadReplies, ...]:
        return await self._read(unread.find)

    async def pauses(self) -> tuple[Pause, ...]:
        return await self._read(operating.pauses)

    async def set_pause(self, platform: str, *, reason: str, operator: str) -> None:
        await self._write(lambda tx: operating.set_pause(tx, platform, reason, operator))

    async def blocks(self) -> tuple[Block, ...]:
        return await self._read(operating.blocks)

    async def set_block(self, caller: str, *, reason: str, operator: str) -> None:
        await self._write(lambda tx: operating.set_block(tx, caller, reason, operator))

    async def operate(
        self, kind: EventKind, *, operator: str, work: Callable[[Database], object] | None = None, **facts: Any
    ) -> None:
        """Does `work`, and records what an operator does by it or is about to do, in one transaction."""

        def run(tx: Transaction) -> None:
            if work is not None:
                work(tx.database)
            tx.event(kind, caller=as_caller(operator), **facts)

        await self._write(run)

    async def census(self) -> dict[tuple[str, str], int]:
        """How many grants each platform has in each state. It reads an index from end to end, and holds up nothing."""
        return await self._engine.survey(operating.census)

    # --- putting a backup to use

    async def sign_of_restore(self, known_us: int) -> str:
        """What shows that the database was restored, to who knows until when it was served; empty if nothing does."""
        return await self._read(lambda tx: restored.sign(tx, known_us))

    async def serve(self, known_us: int) -> int:
        """Notes that the database is served now; until when it was, in microseconds since 1970.

        From the first time on nothing is claimed from a database that has gone back. Raises GoneBack.
        """
        self._served.until_us = max(self._served.until_us, known_us)
        self._served.until_us = await self._write(restored.serve)
        return self._served.until_us

    @property
    def gone_back(self) -> str:
        """Why this process serves the database no more; empty if it does."""
        return self._served.gone_back

    async def count_unspent(self, multiple_use: Sequence[str]) -> int:
        """Grants that `suspect` would take."""
        return await self._read(lambda tx: restored.count(tx, restored.may_be_spent(multiple_use)))

    async def suspect(self, multiple_use: Sequence[str], *, limit: int) -> int:
        """Makes so many grants suspect, but for platforms whose refresh tokens work any number of times; how many."""
        return await self._write(lambda tx: restored.suspect(tx, multiple_use, limit))

    async def put_to_use(self, *, operator: str, suspects: int, known_us: int) -> None:
        await self._write(lambda tx: restored.put_to_use(tx, operator, suspects, known_us))

    async def suspects(self) -> list[tuple[str, int, int]]:
        """Platform, suspect grants whose access token lives, and those whose has ended."""
        return await self._read(restored.suspects)

    async def count_suspects(self, which: Suspects) -> int:
        return await self._read(lambda tx: restored.count(tx, which.condition(tx.now_us)))

    async def try_suspects(self, which: Suspects, *, operator: str, limit: int) -> int:
        """Lets so many be sent once more, shortly before their access token ends; how many."""
        return await self._write(lambda tx: restored.try_again(tx, which, operator, limit))

    async def give_up_suspects(self, which: Suspects, *, operator: str, limit: int) -> int:
        """Calls so many dead without asking the platform, and their accounts EXPIRED; how many."""
        return await self._write(lambda tx: restored.give_up(tx, which, operator, limit))

    # --- the audit

    async def record_refusals(self, refusals: Sequence[Refusal]) -> None:
        await self._write(lambda tx: operating.record_refusals(tx, refusals))

    async def record_use(self, use: Use) -> None:
        await self._uses.put(use)

    async def record_use_failed(self, failed: UseFailed) -> None:
        await self._uses.put(failed)

    async def _record_uses(self, group: Sequence[Use | UseFailed]) -> Sequence[AccountError | None]:
        return await self._write(lambda tx: uses.record(tx, group))

    async def list_events(self, which: EventFilter, *, after: str, size: int) -> EventPage:
        return await self._engine.survey(
            lambda database: audit.list_page(self._transaction(database), which, after, size)
        )

    async def link_events(self, *, owner: str, lease: timedelta, limit: int) -> int:
        if not await self._read(lambda tx: audit.may_link(tx, owner)):
            return 0
        return await self._write(lambda tx: audit.link(tx, owner, lease, limit))

    async def audit_lag(self) -> timedelta:
        """How long the oldest event that is not linked yet has been waiting."""
        return await self._read(audit.lag)

    async def verify_chain(self, noted: ChainPlace | None = None) -> ChainReport:
        return await self._engine.survey(lambda database: audit.verify(database, noted, self._engine.locks_rows))

    # --- erasing

    async def begin_erasure(self, profile_id: str, *, caller: str) -> Erasure:
        return await self._write(lambda tx: erase.begin(tx, profile_id, caller))

    async def erase_account(self, account_id: str, erasure: Erasure, *, supported: bool, ends_user_grant: bool) -> None:
        await self._write(lambda tx: erase.erase_account(tx, account_id, erasure, supported, ends_user_grant))

    async def erase_traces(self, erasure: Erasure) -> bool:
        return await self._write(lambda tx: erase.erase_traces(tx, erasure))

    async def open_erasures(self, *, limit: int) -> list[Erasure]:
        return await self._read(lambda tx: erase.open_erasures(tx, limit))

    async def settle_erasure(self, erasure: Erasure) -> bool:
        return await self._write(lambda tx: erase.settle(tx, erasure))

    async def receipt(self, erasure_id: str) -> Receipt:
        return await self._read(lambda tx: erase.receipt(tx, erasure_id))

    async def wipe(self) -> None:
        await self._engine.wipe()

    async def erase_revoked(self, *, before: datetime, limit: int) -> int:
        return await self._write(lambda tx: erase.erase_revoked(tx, before, limit))

    async def prune_audit(self, *, before: datetime, limit: int) -> int:
        def prune(tx: Transaction) -> int:
            erase.forget_receipts(tx, before)
            return audit.prune(tx, before, limit)

        return await self._write(prune)

    # --- running

    async def _read(self, work: Callable[[Transaction], T]) -> T:
        return await self._engine.read(lambda database: work(self._transaction(database)))

    async def _write(self, work: Callable[[Transaction], T]) -> T:
        origin = ORIGIN.get()()

        def run(database: Any) -> tuple[T, bool]:
            tx = self._transaction(database, origin)
            result = work(tx)
            return result, tx.write_events()

        try:
            result, changes_accounts = await self._engine.write(run)
        except StoreUnavailable:
            self._takes_writes = False
            raise
        self._takes_writes = True
        if changes_accounts:
            self.on_change()
        return result

    def _transaction(self, database: Database, origin: Origin = NOWHERE) -> Transaction:
        return Transaction(
            database,
            self._statements,
            self._vault,
            self.clock,
            self._new_id,
            locks_rows=self._engine.locks_rows,
            origin=origin,
            served=self._served,
        )
