"""What the tests of the audit begin with: events, and a revoke that is one."""

from server.accounts.audit import Linker
from server.accounts.events import EventFilter
from server.storage.store import Store
from tests.storage.make import begun


async def revoke(store: Store, account_id: str, caller: str = "web") -> None:
    await store.revoke_account(account_id, caller=caller, supported=True, ends_user_grant=False)


async def some_events(store: Store, number: int = 5) -> list[str]:
    """Links at least so many events; their ids as they are linked."""
    for each in range(number):
        await begun(store, profile_id=f"p{each}")
    await Linker(store, "me").work_off()
    page = await store.list_events(EventFilter(), after="", size=100)
    return [event.id for event in sorted(page.events, key=lambda event: event.position or 0)]
