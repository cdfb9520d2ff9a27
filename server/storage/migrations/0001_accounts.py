"""Accounts, grants, authorization requests, the revocation outbox, events; the page-token key, sealed."""

import secrets

from peewee import SQL, BigIntegerField, BlobField, BooleanField, CharField, IntegerField, TextField


def up(migrator, db):
    class Account(db.Model):
        id = CharField(primary_key=True)
        profile_id = CharField()
        platform = CharField()
        platform_user_id = CharField()
        grant_id = CharField(index=True)
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
            indexes = (
                (("profile_id", "platform", "platform_user_id"), True),
                (("profile_id", "id"), False),
                (("platform", "platform_user_id"), False),
                (("status", "id"), False),
            )

    class Grant(db.Model):
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
        sends = IntegerField()
        attempts = IntegerField()
        last_error = TextField()
        last_refresh_time = BigIntegerField(null=True)
        create_time = BigIntegerField()

        class Meta:
            table_name = "grants"

    # Only what is due some day is in these indexes; a tick that finds nothing reads one entry of each.
    Grant.add_index(Grant.platform, Grant.refreshable, Grant.due_time, where=SQL("due_time IS NOT NULL"))
    Grant.add_index(Grant.platform, Grant.identity_due_time, where=SQL("identity_due_time IS NOT NULL"))
    Grant.add_index(Grant.state, where=SQL("state <> 'ready'"))

    class AuthorizationRequest(db.Model):
        id = CharField(primary_key=True)
        state_hash = BlobField(unique=True)
        completion_code_hash = BlobField(null=True, unique=True)
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
        account_ids = TextField()
        sweep_time = BigIntegerField(index=True)

        class Meta:
            table_name = "authorization_requests"

    class Revocation(db.Model):
        id = CharField(primary_key=True)
        account_id = CharField(null=True, index=True)
        grant_id = CharField(index=True)
        profile_id = CharField()
        platform = CharField()
        tokens = BlobField()
        due_time = BigIntegerField(null=True)
        attempts = IntegerField()
        last_error = TextField()
        create_time = BigIntegerField()

        class Meta:
            table_name = "revocations"
            indexes = ((("platform", "due_time"), False),)

    class Event(db.Model):
        id = CharField(primary_key=True)
        number = BigIntegerField(null=True, unique=True)
        time = BigIntegerField()
        kind = CharField()
        account_id = CharField(null=True)
        profile_id = CharField()
        platform = CharField()
        caller = CharField()
        facts = TextField()

        class Meta:
            table_name = "events"
            indexes = ((("account_id", "id"), False),)

    class Counter(db.Model):
        name = CharField(primary_key=True)
        value = BigIntegerField()

        class Meta:
            table_name = "counters"

    class Secret(db.Model):
        name = CharField(primary_key=True)
        sealed = BlobField()

        class Meta:
            table_name = "secrets"

    class KeyCheck(db.Model):
        key_id = CharField(primary_key=True)
        value = BlobField()

        class Meta:
            table_name = "key_checks"

    db.create_tables([Account, Grant, AuthorizationRequest, Revocation, Event, Counter, Secret, KeyCheck])
    Counter.insert(name="events", value=0).execute()
    page_token_key = migrator.vault.seal(secrets.token_bytes(32), ("secrets", "sealed", "page_token_key"))
    Secret.insert(name="page_token_key", sealed=page_token_key).execute()
