"""How statements are planned: by an index, since going through a million accounts takes seconds, and once."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import cysqlite
import pytest

from server.accounts.calls import Use
from server.accounts.grants import GrantState, Retry
from server.accounts.model import AccountFilter, StatusReason
from server.storage.clock import Clock
from server.storage.engine import SqliteEngine
from server.storage.store import Store
from server.storage.vault import Vault
from tests.storage.make import claim, connected, refreshed, revoke, token_set

LARGE = ("accounts", "grants", "events", "audit_chain")
FEW = ("events_unlinked", "grant_state")
"""Indexes of few rows, which may be gone through."""
MINUTE = timedelta(minutes=1)
DUE = timedelta(minutes=97)


async def a_day(store: Store, clock: Clock) -> None:
    """Most of what a server does by itself and for callers, with something to do for each."""
    kept, lost, ended, revoked = [await connected(store, profile_id=f"p{number}") for number in range(4)]
    clock.offset += DUE
    grants = {grant.profile_id: grant for grant in await claim(store)}
    now = await store.now()
    await store.commit_refresh(refreshed(grants["p0"], token_set(2, expire_time=now + DUE), now + DUE))
    await store.release(grants["p1"], Retry(GrantState.UNKNOWN, now, spent=True), error="no answer", reply=b"half")
    await store.expire_grant(grants["p2"], StatusReason.REFRESH_REJECTED, error="invalid_grant")
    await store.free_dead_leases()
    await revoke(store, revoked.id)
    await store.sweep_requests(limit=100)
    for entry in await store.claim_revocations("twitter", lease=MINUTE, limit=10):
        await store.finish_revocation(entry)
    for account in (kept, lost, ended, revoked):
        await store.account_at_hand(account.id)
        await store.token_set(account.grant_id)
        await store.grant(account.grant_id)
        await store.events_of(account.id, limit=10)
        await store.list_accounts(AccountFilter(profile_id=account.profile_id), after="", size=50)
    await store.record_use(Use("use", kept, "web", "GET", "/2/users/{id}", "", ""))
    await store.claim_grants([kept.grant_id], owner="me", lease=MINUTE, min_interval=MINUTE, caller="web")
    await store.expire_ended("twitter", limit=10)
    await store.claim_identity_due("twitter", retry=MINUTE, limit=10)
    await store.tell_ends(timedelta(days=7), limit=10)
    await store.link_events(owner="me", lease=MINUTE, limit=10)
    await store.audit_lag()
    await store.recent_changes(limit=10)
    await store.changes_since((await store.recent_changes(limit=10))[0].mark, limit=10)
    erasure = await store.begin_erasure("p0", caller="web")
    await store.erase_account(kept.id, erasure, supported=True, ends_user_grant=False)
    while await store.erase_traces(erasure):
        pass
    await store.settle_erasure(erasure)


async def test_nothing_goes_through_all_the_accounts_grants_or_events(
    sqlite: SqliteEngine, vault: Vault, new_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    execute = sqlite.database.execute_sql

    def noted(sql: str, parameters: Any = None) -> Any:
        asked[sql] = parameters
        return execute(sql, parameters)

    monkeypatch.setattr(sqlite.database, "execute_sql", noted)
    store = Store(sqlite, vault, new_id)
    await a_day(store, sqlite.clock)
    scans = []
    for sql, parameters in asked.items():
        if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            named = {alias: table for table, alias in re.findall(r'"(\w+)" AS "(t\d+)"', sql)}
            for step in (str(row[-1]).split() for row in execute(f"EXPLAIN QUERY PLAN {sql}", parameters)):
                if step[0] == "SCAN" and named.get(step[1], step[1]) in LARGE and step[-1] not in FEW:
                    scans.append((step, sql))
    assert scans == []


async def test_a_statement_is_parsed_once_whatever_values_it_is_run_with(
    sqlite: SqliteEngine, vault: Vault, new_id: Callable[[], str]
) -> None:
    parsed = 0

    def count(*_: Any) -> int:
        nonlocal parsed
        parsed += 1
        return cysqlite.SQLITE_OK

    store = Store(sqlite, vault, new_id)
    one, other = [await connected(store, profile_id=profile_id) for profile_id in ("p1", "p2")]
    sqlite.database.connection().authorizer(count)
    await store.account_at_hand(one.id)
    first = parsed
    await store.account_at_hand(other.id)
    await store.account_at_hand("nobody")
    assert first > 0
    assert parsed == first
