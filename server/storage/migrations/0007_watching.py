"""Whether watchers were told that a grant without a refresh token ends, and an index of those not told of."""


def up(migrator, db):  # noqa: ARG001 (the runner calls it so)
    db.execute_sql("ALTER TABLE grants ADD COLUMN end_told BOOLEAN NOT NULL DEFAULT FALSE")
    db.execute_sql(
        "CREATE INDEX grants_end_untold ON grants (access_token_expire_time) WHERE NOT refreshable AND NOT end_told"
    )
    # Accounts that were erased lately, whose profile is forgotten a little later.
    db.execute_sql("CREATE INDEX events_erased ON events (time) WHERE kind = 'account_erased' AND profile_id <> ''")
