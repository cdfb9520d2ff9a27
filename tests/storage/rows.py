"""What a database holds, past the store: for tests that look at rows, or damage them."""

import json
from typing import Any

from server.storage.engine import Engine


def sql(engine: Engine, text: str, parameters: list[object] | None = None) -> Any:
    """A cursor, whatever the database calls its parameters."""
    return engine.database.execute_sql(text.replace("?", engine.database.param), parameters or [])


def events(engine: Engine, account_id: str | None = None) -> list[tuple[int | None, str, dict[str, object]]]:
    rows = sql(engine, "SELECT number, kind, facts, account_id FROM events ORDER BY id").fetchall()
    return [(row[0], row[1], json.loads(row[2])) for row in rows if account_id in (None, row[3])]
