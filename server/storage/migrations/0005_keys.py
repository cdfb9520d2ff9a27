"""The lives of key-encryption keys, what each process says of its keys, and a row that changes of them queue for."""

from peewee import BigIntegerField, BlobField, CharField, TextField


def up(migrator, db):  # noqa: ARG001 (the runner calls it so)
    class KeyLife(db.Model):
        key_id = CharField(primary_key=True)
        wraps = BigIntegerField()
        retire_time = BigIntegerField(null=True)

        class Meta:
            table_name = "key_lives"

    class KeyUser(db.Model):
        process = CharField(primary_key=True)
        knows = TextField(null=True)
        uses = TextField()
        time = BigIntegerField()

        class Meta:
            table_name = "key_users"

    class KeyCheck(db.Model):
        key_id = CharField(primary_key=True)
        value = BlobField()

        class Meta:
            table_name = "key_checks"

    class Counter(db.Model):
        name = CharField(primary_key=True)
        value = BigIntegerField()

        class Meta:
            table_name = "counters"

    db.create_tables([KeyLife, KeyUser])
    Counter.insert(name="keys", value=0).execute()
    for check in KeyCheck.select():
        KeyLife.insert(key_id=check.key_id, wraps=0).execute()
