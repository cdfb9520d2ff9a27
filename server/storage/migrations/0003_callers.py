"""What operators say about callers."""

from peewee import BigIntegerField, CharField, TextField


def up(migrator, db):  # noqa: ARG001 (the runner calls it so)
    class CallerBlock(db.Model):
        caller = CharField(primary_key=True)
        reason = TextField()
        operator = TextField()
        time = BigIntegerField()

        class Meta:
            table_name = "caller_blocks"

    db.create_tables([CallerBlock])
