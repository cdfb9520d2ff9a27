"""Indexes for accounts that are used all the time: their usage page by page, and their story without it."""


def up(migrator, db):  # noqa: ARG001 (the runner calls it so)
    db.execute_sql("DROP INDEX event_account_id_id")
    db.execute_sql("CREATE INDEX events_account_id_time_id ON events (account_id, time, id)")
    db.execute_sql(
        "CREATE INDEX events_story ON events (account_id, id) WHERE kind NOT IN ('account_used', 'account_use_failed')"
    )
