"""Lists that may read every row hold up no event loop: they are surveys, of a thread and connection of their own."""

import asyncio
import threading
from typing import Any

import pytest

from server.accounts.events import EventFilter
from server.accounts.model import AccountFilter
from server.storage.engine import Engine
from server.storage.store import Store

MANY = 40
"""More than there are threads of any kind."""


async def test_lists_that_no_index_answers_are_never_read_in_the_event_loop(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(work: Any) -> Any:
        raise AssertionError("it was read in the event loop")

    monkeypatch.setattr(store._engine, "read", read)
    everything = AccountFilter(profile_prefixes=("nobody/",))
    assert (await store.list_accounts(everything, after="", size=9)).accounts == ()
    assert (await store.list_events(EventFilter(kind="restored"), after="", size=9)).events == ()
    with pytest.raises(AssertionError):
        await store.list_accounts(AccountFilter("p1"), after="", size=9)


@pytest.mark.parametrize("gives_up", [False, True], ids=["who waits", "who gives up"])
async def test_however_many_lists_are_asked_for_they_delay_nothing_else(engine: Engine, gives_up: bool) -> None:
    go_on = threading.Event()
    surveys = [asyncio.create_task(engine.survey(lambda _: go_on.wait(30))) for _ in range(MANY)]
    try:
        await asyncio.sleep(0)
        for survey in surveys if gives_up else ():
            survey.cancel()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await engine.read(lambda database: database.execute_sql("SELECT 1").fetchone())
            await engine.write(lambda database: database.execute_sql("SELECT 1").fetchone())
            await asyncio.to_thread(lambda: None)  # where the journal is written, and names are looked up
    finally:
        go_on.set()
    await asyncio.gather(*surveys, return_exceptions=True)
