"""Token sets as they are stored: packed, sealed, and bound to the one place where they may be opened."""

from __future__ import annotations

import json
from typing import Any

from server.accounts.grants import TokenSet
from server.accounts.model import Secret
from server.storage.transaction import optional_instant, optional_micros
from server.storage.vault import Vault


def grant_context(column: str, grant_id: str, profile_id: str, platform: str, generation: int) -> tuple[str | int, ...]:
    """What a sealed value of a grant is bound to."""
    return ("grants", column, grant_id, profile_id, platform, generation)


def open_grant(vault: Vault, row: Any) -> TokenSet:
    """The token set of a grant's row. Raises SealBroken."""
    bound = grant_context("token_set", row.id, row.profile_id, row.platform, row.generation)
    return unpack(vault.open(bytes(row.token_set), bound))


def open_candidate(vault: Vault, row: Any) -> TokenSet | None:
    """The parked candidate of a grant's row, if there is one. Raises SealBroken."""
    if row.candidate is None:
        return None
    bound = grant_context("candidate", row.id, row.profile_id, row.platform, row.generation)
    return unpack(vault.open(bytes(row.candidate), bound))


def pack(token_set: TokenSet) -> bytes:
    """A token set as the bytes that are sealed."""
    refresh_token = token_set.refresh_token
    return json.dumps(
        {
            "access_token": token_set.access_token.reveal(),
            "refresh_token": refresh_token.reveal() if refresh_token else None,
            "expire_time": optional_micros(token_set.expire_time),
            "scopes": token_set.scopes,
        }
    ).encode()


def unpack(packed: bytes) -> TokenSet:
    data = json.loads(packed)
    return TokenSet(
        access_token=Secret(data["access_token"]),
        refresh_token=Secret(data["refresh_token"]) if data["refresh_token"] else None,
        expire_time=optional_instant(data["expire_time"]),
        scopes=tuple(data["scopes"]),
    )
