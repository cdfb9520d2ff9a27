"""What operators say about platforms, and a row to write to when it is asked whether the database takes writes."""

from peewee import BigIntegerField, CharField, TextField


def up(migrator, db):  # noqa: ARG001 (the runner calls it so)
    class PlatformPause(db.Model):
        platform = CharField(primary_key=True)
        reason = TextField()
        operator = TextField()
        time = BigIntegerField()

        class Meta:
            table_name = "platform_pauses"

    class Counter(db.Model):
        name = CharField(primary_key=True)
        value = BigIntegerField()

        class Meta:
            table_name = "counters"

    db.create_tables([PlatformPause])
    Counter.insert(name="heartbeat", value=0).execute()
