"""Fills a database with many accounts, as they would be after as many connects; nothing of them is due."""

from __future__ import annotations

import time
from pathlib import Path

import cysqlite
import psycopg

HOUR = 3600 * 1_000_000
PER_PROFILE = 50

ACCOUNTS = """
INSERT INTO accounts
  (id, profile_id, platform, platform_user_id, grant_id, handle, display_name, avatar_url, scopes, missing_scopes,
   status, status_reason, status_time, platform_revocation, create_time, update_time)
WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count} - 1)
SELECT '01930000-0000-7000-8000-' || {hex}, 'acme/' || (n / {per_profile}), 'twitter', '' || (1000000 + n),
       '01930000-0000-7000-9000-' || {hex}, 'handle' || n, 'Display Name ' || n,
       'https://pbs.twimg.com/profile_images/' || n || '/avatar_normal.jpg',
       'offline.access tweet.read tweet.write users.read', '', 1, 0, {now}, 0, {now}, {now}
FROM numbers
"""

GRANTS = """
INSERT INTO grants
  (id, account_id, profile_id, platform, state, generation, token_set, refreshable, access_token_expire_time, due_time,
   identity_due_time, sends, attempts, last_error, last_refresh_time, create_time)
SELECT grant_id, id, profile_id, platform, 'ready', 7, {blank}, TRUE, {later}, {later}, {later}, 0, 0, '', {now}, {now}
FROM accounts
"""

SQLITE = {"hex": "printf('%012x', n)", "blank": "zeroblob(420)"}
POSTGRES = {"hex": "lpad(to_hex(n), 12, '0')", "blank": "decode(repeat('00', 420), 'hex')"}


def account_id(number: int) -> str:
    return f"01930000-0000-7000-8000-{number:012x}"


def fill(database: Path | str, count: int) -> None:
    """Adds `count` accounts, 50 to a profile. Their sealed token sets are blanks of the usual size, never opened.

    `database` is an SQLite file or the URL of a PostgreSQL database.
    """
    now = int(time.time() * 1_000_000)
    words = SQLITE if isinstance(database, Path) else POSTGRES
    accounts, grants = (
        sql.format(count=count, per_profile=PER_PROFILE, now=now, later=now + 24 * HOUR, **words)
        for sql in (ACCOUNTS, GRANTS)
    )
    if isinstance(database, Path):
        connection = cysqlite.Connection(str(database))
        connection.execute("PRAGMA cache_size = -500000")
        connection.begin()
        connection.execute(accounts)
        connection.execute(grants)
        connection.commit()
        connection.execute("ANALYZE")
        connection.close()
        return
    with psycopg.connect(database, autocommit=True) as postgres:
        for statement in (accounts, grants, "VACUUM ANALYZE"):
            postgres.execute(statement)
