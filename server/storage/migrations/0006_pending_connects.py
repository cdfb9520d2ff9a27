"""Indexes to count the connects that have not ended, of a caller and of a profile."""


def up(migrator, db):  # noqa: ARG001 (the runner calls it so)
    for name in ("caller", "profile_id"):
        db.execute_sql(
            f"CREATE INDEX authorization_requests_{name} ON authorization_requests ({name}, phase, expire_time)"
        )
