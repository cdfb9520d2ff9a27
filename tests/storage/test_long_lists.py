"""Lists that may read every row hold up no event loop: they are surveys, of a thread and connection of their own."""

from typing import Any

import pytest

from server.accounts.events import EventFilter
from server.accounts.model import AccountFilter
from server.storage.store import Store


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
