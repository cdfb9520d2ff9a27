"""Builds what the store's tests begin with: connected accounts, through the store's own methods."""

import hashlib
import secrets
import uuid
from datetime import datetime, timedelta

from server.accounts.flow import AuthorizationRequest, Endpoints, Phase
from server.accounts.grants import ClaimedGrant, NewGrant, Refreshed, TokenSet, to_refreshed
from server.accounts.model import Account, Identity, PlatformRevocation, Secret, Status, StatusReason
from server.storage.store import Store

ENDPOINTS = Endpoints(
    authorization="https://platform.test/authorize",
    token="https://platform.test/token",
    revocation="https://platform.test/revoke",
    identity="https://platform.test/me",
    issuer="",
)
SCOPES = ("offline.access", "tweet.read", "users.read")


def token_set(
    number: int = 1, *, expire_time: datetime | None, refresh_token: bool = True, scopes: tuple[str, ...] = SCOPES
) -> TokenSet:
    return TokenSet(
        Secret(f"at-canary-{number}"), Secret(f"rt-canary-{number}") if refresh_token else None, expire_time, scopes
    )


async def begun(
    store: Store, *, profile_id: str = "p1", platform: str = "twitter", account_id: str | None = None
) -> AuthorizationRequest:
    now = await store.now()
    request = AuthorizationRequest(
        id=str(uuid.uuid4()),
        state_hash=hashlib.sha256(secrets.token_bytes()).digest(),
        caller="web",
        profile_id=profile_id,
        platform=platform,
        account_id=account_id,
        scopes=SCOPES,
        redirect_uri="https://accounts.test/oauth/callback/twitter",
        return_url="https://app.test/done",
        caller_redirects=False,
        endpoints=ENDPOINTS,
        code_verifier=Secret("verifier-canary"),
        create_time=now,
        expire_time=now + timedelta(minutes=10),
        phase_time=now,
    )
    await store.add_request(request)
    return request


async def new_grant(
    store: Store,
    *,
    user: str = "1",
    handle: str = "ada",
    life: timedelta | None = timedelta(hours=2),
    due: timedelta | None = timedelta(minutes=96),
    refresh_token: bool = True,
    scopes: tuple[str, ...] = SCOPES,
) -> NewGrant:
    now = await store.now()
    return NewGrant(
        id=str(uuid.uuid4()),
        token_set=token_set(
            expire_time=None if life is None else now + life, refresh_token=refresh_token, scopes=scopes
        ),
        identities=(Identity(user, handle, "Ada Lovelace", "https://img.test/ada.png"),),
        missing_scopes=tuple(sorted(set(SCOPES) - set(scopes))),
        due_time=None if due is None else now + due,
        identity_due_time=now + timedelta(days=30),
    )


async def connected(store: Store, *, profile_id: str = "p1", platform: str = "twitter", **grant: object) -> Account:
    request = await begun(store, profile_id=profile_id, platform=platform)
    assert await store.start_exchange(request.id, expected=Phase.BEGUN)
    accounts = await store.complete_request(request, await new_grant(store, **grant))  # type: ignore[arg-type]
    assert accounts is not None
    return accounts[0]


async def claim(store: Store, *, owner: str = "me", limit: int = 10, platform: str = "twitter") -> list[ClaimedGrant]:
    return await store.claim_due(platform, owner=owner, lease=timedelta(seconds=60), limit=limit)


def refreshed(claimed: ClaimedGrant, fresh: TokenSet, due_time: datetime) -> Refreshed:
    return to_refreshed(claimed, fresh, due_time)


async def revoke(store: Store, account_id: str, **rules: bool) -> PlatformRevocation:
    supported, ends = rules.get("supported", True), rules.get("ends_user_grant", False)
    account = await store.revoke_account(account_id, caller="web", supported=supported, ends_user_grant=ends)
    assert (account.status, account.status_reason) == (Status.REVOKED, StatusReason.REVOKED_BY_CALLER)
    assert account.access_token_expire_time is None
    return account.platform_revocation
