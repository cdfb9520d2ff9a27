"""SQL of authorization requests: each step is one conditional UPDATE, so a state and a code are used once."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from peewee import Case

from server.accounts.errors import Reason
from server.accounts.events import EventKind
from server.accounts.flow import EXCHANGE_LIMIT, OUTCOME_KEPT, AuthorizationRequest, Endpoints, Failure, Phase
from server.accounts.grants import GrantState, NewGrant, TokenSet
from server.accounts.model import Secret
from server.storage import accounts, grants, revocations
from server.storage.schema import AccountRow, GrantRow, RequestRow
from server.storage.statement import slot
from server.storage.token_sets import pack, unpack
from server.storage.transaction import Transaction, instant, micros, optional_instant, words
from server.storage.vault import SealBroken

log = logging.getLogger(__name__)


def context(column: str, row_id: str, profile_id: str, platform: str) -> tuple[str | int, ...]:
    return ("authorization_requests", column, row_id, profile_id, platform, 0)


def add(tx: Transaction, request: AuthorizationRequest, of_caller: int | None, of_profile: int | None) -> str:
    """Stores it, unless so many of its caller or profile are pending; then it says whose."""
    if of_caller is not None and pending(tx, RequestRow.caller == request.caller, of_caller) >= of_caller:
        return "caller"
    if of_profile is not None and pending(tx, RequestRow.profile_id == request.profile_id, of_profile) >= of_profile:
        return "profile"
    bound = context("code_verifier", request.id, request.profile_id, request.platform)
    RequestRow.insert(
        id=request.id,
        state_hash=request.state_hash,
        caller=request.caller,
        profile_id=request.profile_id,
        platform=request.platform,
        account_id=request.account_id,
        scopes=" ".join(request.scopes),
        redirect_uri=request.redirect_uri,
        return_url=request.return_url,
        caller_redirects=request.caller_redirects,
        endpoints=json.dumps(asdict(request.endpoints)),
        code_verifier=tx.vault.seal(request.code_verifier.reveal().encode(), bound),
        create_time=micros(request.create_time),
        expire_time=micros(request.expire_time),
        phase=request.phase,
        phase_time=tx.now_us,
        sweep_time=micros(request.expire_time + OUTCOME_KEPT),
    ).execute(tx.database)
    tx.event(
        EventKind.CONNECT_BEGUN,
        account_id=request.account_id,
        profile_id=request.profile_id,
        platform=request.platform,
        caller=request.caller,
        connect_id=request.id,
        scopes=list(request.scopes),
    )
    return ""


def pending(tx: Transaction, whose: Any, most: int) -> int:
    """How many connects have not ended; counted up to `most`."""
    phases = (Phase.BEGUN, Phase.ANSWERED, Phase.EXCHANGING)
    found = RequestRow.select(RequestRow.id).where(
        whose, RequestRow.phase.in_(phases), RequestRow.expire_time > tx.now_us
    )
    return int(found.limit(most).count(tx.database))


def awaited(tx: Transaction, state_hash: bytes) -> AuthorizationRequest | None:
    """One that waits for its answer at our callback. To find that there is none costs one look at an index."""

    def query() -> Any:
        return RequestRow.select(RequestRow.id).where(
            RequestRow.state_hash == slot("state_hash"),
            RequestRow.phase == Phase.BEGUN,
            ~RequestRow.caller_redirects,
            RequestRow.expire_time > slot("now"),
        )

    found = tx.run("awaited request", query, state_hash=state_hash, now=tx.now_us).fetchone()
    return None if found is None else find(tx, RequestRow.id == found[0])


def forgotten() -> Any:
    """A state that our callback took is forgotten, so that brought again it is as unknown as any other, and takes as
    long. Callers with a redirect URI of their own go on asking by theirs.
    """
    return Case(None, [(RequestRow.caller_redirects, RequestRow.state_hash)], os.urandom(32))


def find(tx: Transaction, condition: Any) -> AuthorizationRequest | None:
    row = RequestRow.select().where(condition).first(tx.database)
    return None if row is None else to_request(tx, row)


def to_request(tx: Transaction, row: Any) -> AuthorizationRequest:
    def opened(column: str, sealed: Any) -> Secret:
        return Secret(tx.vault.open(bytes(sealed), context(column, row.id, row.profile_id, row.platform)).decode())

    return AuthorizationRequest(
        id=row.id,
        state_hash=bytes(row.state_hash),
        caller=row.caller,
        profile_id=row.profile_id,
        platform=row.platform,
        account_id=row.account_id,
        scopes=words(row.scopes),
        redirect_uri=row.redirect_uri,
        return_url=row.return_url,
        caller_redirects=bool(row.caller_redirects),
        endpoints=Endpoints(**json.loads(row.endpoints)),
        code_verifier=opened("code_verifier", row.code_verifier),
        create_time=instant(row.create_time),
        expire_time=instant(row.expire_time),
        phase=Phase(row.phase),
        phase_time=instant(row.phase_time),
        code=opened("code", row.code) if row.code is not None else None,
        completion_expire_time=optional_instant(row.completion_expire_time),
        failure=Failure(**json.loads(row.failure)) if row.failure else None,
        account_ids=words(row.account_ids),
    )


def answer(
    tx: Transaction, connect_id: str, code: Secret, completion_code_hash: bytes, completion_expire_time: datetime
) -> bool:
    row = tx.locked(RequestRow, connect_id)
    if row is None:
        return False
    bound = context("code", row.id, row.profile_id, row.platform)
    answered = (
        RequestRow.update(
            state_hash=forgotten(),
            phase=Phase.ANSWERED,
            phase_time=tx.now_us,
            code=tx.vault.seal(code.reveal().encode(), bound),
            completion_code_hash=completion_code_hash,
            completion_expire_time=micros(completion_expire_time),
        )
        .where(RequestRow.id == connect_id, RequestRow.phase == Phase.BEGUN, RequestRow.expire_time > tx.now_us)
        .execute(tx.database)
    )
    return bool(answered == 1)


def start_exchange(tx: Transaction, connect_id: str, expected: Phase) -> bool:
    started = (
        RequestRow.update(
            state_hash=forgotten(),
            phase=Phase.EXCHANGING,
            phase_time=tx.now_us,
            code=None,
            sweep_time=micros(tx.now + EXCHANGE_LIMIT),
        )
        .where(RequestRow.id == connect_id, RequestRow.phase == expected)
        .execute(tx.database)
    )
    return bool(started == 1)


def keep_exchanged(tx: Transaction, request: AuthorizationRequest, token_set: TokenSet) -> bool:
    """Keeps the tokens with the request; if that was given up meanwhile, they go to the outbox, and it says False."""
    row = tx.locked(RequestRow, request.id)
    if row is None or row.phase != Phase.EXCHANGING:
        # What is forgotten may have been erased with its profile, so its tokens are bound to none.
        revoke_exchanged(tx, "" if row is None else row.profile_id, request.platform, token_set)
        return False
    bound = context("exchanged", row.id, row.profile_id, row.platform)
    RequestRow.update(exchanged=tx.vault.seal(pack(token_set), bound)).where(RequestRow.id == row.id).execute(
        tx.database
    )
    return True


def revoke_exchanged(tx: Transaction, profile_id: str, platform: str, token_set: TokenSet) -> None:
    """A grant that no account will use goes to the outbox."""
    revocations.add(
        tx,
        token_set,
        account_id=None,
        grant_id="",
        profile_id=profile_id,
        platform=platform,
        due_us=tx.now_us,
    )


def fail(tx: Transaction, connect_id: str, failure: Failure, expected: Sequence[Phase]) -> bool:
    row = tx.lock(RequestRow.select().where(RequestRow.id == connect_id, RequestRow.phase.in_(list(expected))))
    if row is None:
        return False
    if row.exchanged is not None:
        bound = context("exchanged", row.id, row.profile_id, row.platform)
        try:
            token_set = unpack(tx.vault.open(bytes(row.exchanged), bound))
            revoke_exchanged(tx, row.profile_id, row.platform, token_set)
        except SealBroken:
            log.critical("a new grant that does not open cannot be revoked", extra={"connect_id": row.id})
    RequestRow.update(**ended(tx, Phase.FAILED), failure=json.dumps(asdict(failure))).where(
        RequestRow.id == row.id
    ).execute(tx.database)
    tx.event(
        EventKind.CONNECT_FAILED,
        account_id=row.account_id,
        profile_id=row.profile_id,
        platform=row.platform,
        caller=row.caller,
        result=failure.reason,
        connect_id=row.id,
        reason=failure.reason,
    )
    return True


def ended(tx: Transaction, phase: Phase) -> dict[str, Any]:
    """A request that has ended keeps its outcome and no secret but the verifier's seal."""
    return {
        "state_hash": forgotten(),
        "phase": phase,
        "phase_time": tx.now_us,
        "code": None,
        "exchanged": None,
        "sweep_time": micros(tx.now + OUTCOME_KEPT),
    }


def complete(tx: Transaction, request: AuthorizationRequest, grant: NewGrant) -> tuple[str, ...] | None:
    """The ids of the accounts that the grant brought; None if the request was given up meanwhile."""
    row = tx.locked(RequestRow, request.id)
    if row is None or row.phase != Phase.EXCHANGING:
        return None
    superseded = [
        (account.grant_id, account.id, account.status_reason in revocations.NOTHING_LEFT)
        for account in renewed(tx, request, grant)
    ]
    account_ids = accounts.attach(tx, request.profile_id, request.platform, request.caller, grant)
    grants.add(tx, account_ids[0], request.profile_id, request.platform, grant)
    revocations.hold(tx, account_ids)
    for grant_id, account_id, nothing_left in superseded:
        supersede(tx, grant_id, account_id, nothing_left=nothing_left)
    RequestRow.update(**ended(tx, Phase.DONE), account_ids=" ".join(account_ids)).where(
        RequestRow.id == request.id
    ).execute(tx.database)
    return account_ids


def renewed(tx: Transaction, request: AuthorizationRequest, grant: NewGrant) -> list[Any]:
    """The accounts as they stand that the grant is going to renew."""
    users = [identity.platform_user_id for identity in grant.identities]
    return list(
        AccountRow.select()
        .where(
            AccountRow.profile_id == request.profile_id,
            AccountRow.platform == request.platform,
            AccountRow.platform_user_id.in_(users),
        )
        .execute(tx.database)
    )


def supersede(tx: Transaction, grant_id: str, account_id: str, *, nothing_left: bool) -> None:
    """An older grant that no account uses any more is retired, and its pair held until the account is revoked.

    It is not revoked now: no platform documents that this would spare the user's newer grant. The pair of a dead one is
    held as well, unless the platform itself said that nothing is left of it: after a lost outcome it may live.
    """
    grant = grants.get(tx, grant_id)
    if grant is None or accounts.of_grant(tx, grant_id):
        return
    if grant.state == GrantState.DEAD and nothing_left:
        GrantRow.delete().where(GrantRow.id == grant_id).execute(tx.database)
        return
    revocations.retire_grant(tx, grant, account_id, None)


def sweep(tx: Transaction, limit: int) -> int:
    """Gives up exchanges that never ended, and forgets requests whose outcome nobody can ask for any more; and revoked
    grants whose last refresh never came back."""
    revocations.drop_stale_stubs(tx)
    over = RequestRow.select(RequestRow.id, RequestRow.phase).where(RequestRow.sweep_time <= tx.now_us).limit(limit)
    rows = tx.lock_free(over)
    if forgotten := [row.id for row in rows if row.phase != Phase.EXCHANGING]:
        # In one statement: one for each would hold up other writes for some tenths of a second.
        RequestRow.delete().where(RequestRow.id << forgotten).execute(tx.database)
    for row in rows:
        if row.phase == Phase.EXCHANGING:
            failure = Failure(Reason.CONNECT_FAILED, "the exchange never ended; begin again")
            fail(tx, row.id, failure, [Phase.EXCHANGING])
    return len(rows)
