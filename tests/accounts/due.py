"""A grant that is due, for tests of what becomes of it."""

from datetime import timedelta

from server.accounts.model import Account
from tests.accounts.conftest import House

DUE = timedelta(minutes=103)
"""After 85 % of two hours."""


async def due_account(house: House) -> Account:
    account = await house.connect()
    house.clock.offset += DUE
    return account


def sent(house: House) -> list[str]:
    return [detail for kind, detail in house.platform.calls if kind == "refresh"]
