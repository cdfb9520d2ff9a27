"""Who called from where, the personal part of events apart, their hash chain, and erasures; the erasure key, sealed."""

import secrets

from peewee import BigIntegerField, BlobField, CharField, IntegerField


def up(migrator, db):
    for column in (
        "peer VARCHAR(255) NOT NULL DEFAULT ''",
        "request_id VARCHAR(255) NOT NULL DEFAULT ''",
        "result VARCHAR(255) NOT NULL DEFAULT 'done'",
        "personal TEXT",
        "chain_position BIGINT",
    ):
        db.execute_sql(f"ALTER TABLE events ADD COLUMN {column}")
    # Older events did not tell the two parts apart.
    db.execute_sql("UPDATE events SET personal = facts, facts = '{}'")
    db.execute_sql("CREATE INDEX events_unlinked ON events (id) WHERE chain_position IS NULL")
    db.execute_sql("CREATE INDEX events_time_id ON events (time, id)")
    db.execute_sql("CREATE INDEX events_profile_id_time_id ON events (profile_id, time, id)")

    class Link(db.Model):
        position = BigIntegerField(primary_key=True)
        event_id = CharField(unique=True)
        salt = CharField()
        personal_hash = CharField()
        link = CharField()

        class Meta:
            table_name = "audit_chain"

    class Chain(db.Model):
        name = CharField(primary_key=True)
        position = BigIntegerField()
        link = CharField()
        start_position = BigIntegerField()
        start_link = CharField()
        lease_owner = CharField()
        lease_expire_time = BigIntegerField()

        class Meta:
            table_name = "audit_head"

    class Erasure(db.Model):
        id = CharField(primary_key=True)
        profile_digest = CharField(unique=True)
        profile_id = CharField(null=True)
        caller = CharField()
        create_time = BigIntegerField()
        erase_time = BigIntegerField(null=True)

        class Meta:
            table_name = "erasures"

    class ErasedAccount(db.Model):
        account_id = CharField(primary_key=True)
        erasure_id = CharField(index=True)
        platform = CharField()
        platform_revocation = IntegerField()
        erase_time = BigIntegerField()
        update_time = BigIntegerField()

        class Meta:
            table_name = "erased_accounts"

    class Secret(db.Model):
        name = CharField(primary_key=True)
        sealed = BlobField()

        class Meta:
            table_name = "secrets"

    db.create_tables([Link, Chain, Erasure, ErasedAccount])
    genesis = "0" * 64
    Chain.insert(
        name="events",
        position=0,
        link=genesis,
        start_position=0,
        start_link=genesis,
        lease_owner="",
        lease_expire_time=0,
    ).execute()
    erasure_key = migrator.vault.seal(secrets.token_bytes(32), ("secrets", "sealed", "erasure_key"))
    Secret.insert(name="erasure_key", sealed=erasure_key).execute()
