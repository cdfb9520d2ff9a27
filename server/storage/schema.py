"""The tables, as Peewee models.

They are bound to no database: every query is executed on the one it is given, so several stores can live in one
process. Times are whole microseconds since 1970 in UTC. `migrations/` holds frozen copies of what was created when.
"""

from __future__ import annotations

from typing import Any

from peewee import SQL, BigIntegerField, BlobField, BooleanField, CharField, IntegerField, Model, TextField


class Base(Model):
    class Meta:
        legacy_table_names = False


class AccountRow(Base):
    """A connected account."""

    id = CharField(primary_key=True)
    profile_id = CharField()
    platform = CharField()
    platform_user_id = CharField()
    grant_id = CharField()
    handle = TextField()
    display_name = TextField()
    avatar_url = TextField()
    scopes = TextField()
    missing_scopes = TextField()
    status = IntegerField()
    status_reason = IntegerField()
    status_time = BigIntegerField()
    platform_revocation = IntegerField()
    create_time = BigIntegerField()
    update_time = BigIntegerField()

    class Meta:
        table_name = "accounts"


class GrantRow(Base):
    """A grant: its sealed token set, and when and by whom it is to be refreshed."""

    id = CharField(primary_key=True)
    account_id = CharField()
    profile_id = CharField()
    platform = CharField()
    state = CharField()
    generation = IntegerField()
    token_set = BlobField()
    candidate = BlobField(null=True)
    unread_reply = BlobField(null=True)
    refreshable = BooleanField()
    access_token_expire_time = BigIntegerField(null=True)
    due_time = BigIntegerField(null=True)
    identity_due_time = BigIntegerField(null=True)
    lease_owner = CharField(null=True)
    lease_expire_time = BigIntegerField(null=True)
    sends = IntegerField(default=0)
    attempts = IntegerField(default=0)
    last_error = TextField(default="")
    last_refresh_time = BigIntegerField(null=True)
    create_time = BigIntegerField()
    end_told = BooleanField(default=False)

    class Meta:
        table_name = "grants"


NOT_READY = SQL("state <> 'ready'")
"""SQLite uses the index of the few grants that are not ready for a query with these words alone, as it is declared."""


def in_state(state: str) -> Any:
    """Grants in one of the states that few are in, not READY; without a look at all the others."""
    return (GrantRow.state == state) & NOT_READY


class RequestRow(Base):
    """An authorization request."""

    id = CharField(primary_key=True)
    state_hash = BlobField()
    completion_code_hash = BlobField(null=True)
    caller = CharField()
    profile_id = CharField()
    platform = CharField()
    account_id = CharField(null=True)
    scopes = TextField()
    redirect_uri = TextField()
    return_url = TextField(null=True)
    caller_redirects = BooleanField()
    endpoints = TextField()
    code_verifier = BlobField()
    code = BlobField(null=True)
    exchanged = BlobField(null=True)
    create_time = BigIntegerField()
    expire_time = BigIntegerField()
    phase = CharField()
    phase_time = BigIntegerField()
    completion_expire_time = BigIntegerField(null=True)
    failure = TextField(null=True)
    account_ids = TextField(default="")
    sweep_time = BigIntegerField()

    class Meta:
        table_name = "authorization_requests"


class RevocationRow(Base):
    """The outbox: tokens that the platform has yet to confirm as revoked. Without a due time they are held back."""

    id = CharField(primary_key=True)
    account_id = CharField(null=True)
    grant_id = CharField()
    profile_id = CharField()
    platform = CharField()
    tokens = BlobField()
    due_time = BigIntegerField(null=True)
    attempts = IntegerField(default=0)
    last_error = TextField(default="")
    create_time = BigIntegerField()

    class Meta:
        table_name = "revocations"


class EventRow(Base):
    """One committed fact about an account."""

    id = CharField(primary_key=True)
    number = BigIntegerField(null=True)
    time = BigIntegerField()
    kind = CharField()
    account_id = CharField(null=True)
    profile_id = CharField()
    platform = CharField()
    caller = CharField()
    peer = CharField(default="")
    request_id = CharField(default="")
    result = CharField(default="done")
    facts = TextField()
    personal = TextField(null=True)
    chain_position = BigIntegerField(null=True)

    class Meta:
        table_name = "events"


class LinkRow(Base):
    """A link of the hash chain over the events. Without its salt, the personal part of its event is erased."""

    position = BigIntegerField(primary_key=True)
    event_id = CharField()
    salt = CharField()
    personal_hash = CharField()
    link = CharField()

    class Meta:
        table_name = "audit_chain"


class ChainRow(Base):
    """The one row of the chain itself: its last link, what its first one follows, and who may add to it."""

    name = CharField(primary_key=True)
    position = BigIntegerField()
    link = CharField()
    start_position = BigIntegerField()
    start_link = CharField()
    lease_owner = CharField()
    lease_expire_time = BigIntegerField()

    class Meta:
        table_name = "audit_head"


class ErasureRow(Base):
    """A profile that is erased. It is known by a keyed digest; its id stays only until nothing of it is left."""

    id = CharField(primary_key=True)
    profile_digest = CharField()
    profile_id = CharField(null=True)
    caller = CharField()
    create_time = BigIntegerField()
    erase_time = BigIntegerField(null=True)

    class Meta:
        table_name = "erasures"


class ErasedAccountRow(Base):
    """The receipt of an erased account: nothing personal, and what became of its tokens at the platform."""

    account_id = CharField(primary_key=True)
    erasure_id = CharField()
    platform = CharField()
    platform_revocation = IntegerField()
    erase_time = BigIntegerField()
    update_time = BigIntegerField()

    class Meta:
        table_name = "erased_accounts"


class CounterRow(Base):
    """Named counters; `events` numbers the changes of accounts."""

    name = CharField(primary_key=True)
    value = BigIntegerField()

    class Meta:
        table_name = "counters"


class SecretRow(Base):
    """Sealed secrets of the service itself; `page_token_key` is one."""

    name = CharField(primary_key=True)
    sealed = BlobField()

    class Meta:
        table_name = "secrets"


class KeyCheckRow(Base):
    """What proves that a key of the ring is the one that this database was written with."""

    key_id = CharField(primary_key=True)
    value = BlobField()

    class Meta:
        table_name = "key_checks"


class KeyLifeRow(Base):
    """How much a key-encryption key has wrapped, and when it was retired."""

    key_id = CharField(primary_key=True)
    wraps = BigIntegerField(default=0)
    retire_time = BigIntegerField(null=True)

    class Meta:
        table_name = "key_lives"


class KeyUserRow(Base):
    """What a process says: the keys that it can open with (null: it has stopped), and those it may still seal with."""

    process = CharField(primary_key=True)
    knows = TextField(null=True)
    uses = TextField()
    time = BigIntegerField()

    class Meta:
        table_name = "key_users"


class PauseRow(Base):
    """What an operator last said about a platform; an empty reason lets it go on."""

    platform = CharField(primary_key=True)
    reason = TextField()
    operator = TextField()
    time = BigIntegerField()

    class Meta:
        table_name = "platform_pauses"


class BlockRow(Base):
    """What an operator last said about a caller; an empty reason lets it in again."""

    caller = CharField(primary_key=True)
    reason = TextField()
    operator = TextField()
    time = BigIntegerField()

    class Meta:
        table_name = "caller_blocks"
