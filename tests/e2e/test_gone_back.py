"""Row D6 where the database is brought back under a server that runs: it notices, and sends nothing any more."""

import logging

import pytest

from server.storage.restored import BACKUP, SERVED, GoneBack
from server.storage.served import NotPutToUse
from tests.e2e.conftest import Whole


async def sql(whole: Whole, *statements: str) -> None:
    """As somebody beside the service does it, in one transaction."""

    def run(database: object) -> None:
        for statement in statements:
            database.execute_sql(statement)  # type: ignore[attr-defined]

    await whole.app.engine.write(run)


async def sent(whole: Whole) -> int:
    return len(await whole.sandbox.requests("token"))


@pytest.mark.parametrize("noticed_by", ["claim", "mark"])
async def test_d6_no_rotated_refresh_token_is_replayed_after_a_snapshot_is_brought_back_under_a_server(
    whole: Whole, noticed_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    await whole.connect()
    await sql(
        whole,
        "CREATE TABLE old_grants AS SELECT * FROM grants",
        "CREATE TABLE old_counters AS SELECT * FROM counters",
    )
    await whole.refresh_due()
    await whole.app.served.keep()
    known, before = whole.app.served.known(), await sent(whole)
    assert before == 2, "a connect and a refresh"

    await sql(
        whole,
        "DELETE FROM grants",
        "INSERT INTO grants SELECT * FROM old_grants",
        f"UPDATE counters SET value = (SELECT value FROM old_counters WHERE name = '{SERVED}') WHERE name = '{SERVED}'",
    )
    if noticed_by == "mark":
        await whole.app.served.keep()
    with pytest.raises(GoneBack, match="has gone back"):
        await whole.app.refresher.run_once()
    assert await sent(whole) == before
    assert not await whole.healthy()
    assert [each.levelno for each in caplog.records].count(logging.CRITICAL) == 1
    assert whole.app.metrics.registry.get_sample_value("accounts_database_gone_back") == 1

    await whole.app.served.keep()
    assert whole.app.served.known() == known, "what the machine knows is not overwritten"
    with pytest.raises(NotPutToUse, match="has gone back"):
        await whole.app.served.check()


async def test_d6_a_server_claims_nothing_from_a_backup_nor_after_that_was_put_to_use_until_it_is_started_anew(
    whole: Whole,
) -> None:
    await whole.connect()
    assert await whole.healthy()
    await sql(whole, f"INSERT INTO counters (name, value) VALUES ('{BACKUP}', 1)")
    with pytest.raises(GoneBack, match="is a backup"):
        await whole.refresh_due()
    await whole.app.store.put_to_use(operator="ada", suspects=0, known_us=0)
    with pytest.raises(GoneBack, match="start the server anew"):
        await whole.app.refresher.run_once()
    assert await sent(whole) == 1
    assert not await whole.healthy()
