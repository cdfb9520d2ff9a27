"""The kill switch of a caller, over both stores."""

import asyncio

import pytest

from server.accounts.blocks import Blocks
from server.accounts.errors import CallerNotPermitted, ConnectRefused, Reason, StoreUnavailable
from server.accounts.flow import AuthorizationResponse, ResultPage, ShowPage
from server.accounts.model import Secret
from tests.accounts.conftest import House
from tests.accounts.script import CALLER, OPERATOR


async def block(house: House, caller: str, reason: str) -> None:
    await house.store.set_block(caller, reason=reason, operator="ada")
    await house.blocks.follow()


async def test_a_block_reaches_every_process_that_looks_and_outlives_them(house: House) -> None:
    await block(house, "web", "stolen")
    for blocks in (house.blocks, other := Blocks(house.store)):
        await blocks.follow()
        blocks.check("ops")
        with pytest.raises(CallerNotPermitted) as caught:
            blocks.check("web")
        assert "stolen" not in caught.value.text, "why is for operators"
    await block(house, "web", "")
    house.blocks.check("web")
    await other.follow()
    other.check("web")


async def test_what_operators_said_last_is_kept_with_who_and_when(house: House) -> None:
    await block(house, "web", "stolen")
    before = house.clock()
    await block(house, "web", "stolen again")
    [said] = await house.store.blocks()
    assert (said.caller, said.reason, said.operator) == ("web", "stolen again", "ada")
    assert before <= said.time <= house.clock()


async def test_who_is_blocked_stays_so_while_the_database_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await block(house, "web", "stolen")

    async def away() -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(house.store, "blocks", away)
    with pytest.raises(StoreUnavailable):
        await house.blocks.follow()
    with pytest.raises(CallerNotPermitted):
        house.blocks.check("web")


async def test_a_link_of_a_blocked_caller_connects_nobody_by_itself(house: House) -> None:
    state = await house.begin(OPERATOR, return_url=None)
    await block(house, OPERATOR.name, "stolen")
    response = AuthorizationResponse(Secret(state), Secret("code"))
    assert await house.callback.answer("twitter", response) == ShowPage(ResultPage.FAILED)
    assert not house.platform.calls
    await block(house, OPERATOR.name, "")
    assert await house.callback.answer("twitter", response) == ShowPage(ResultPage.CONNECTED)


async def test_links_of_others_go_on_connecting(house: House) -> None:
    await block(house, CALLER.name, "stolen")
    state = await house.begin(OPERATOR, return_url=None)
    response = AuthorizationResponse(Secret(state), Secret("code"))
    assert await house.callback.answer("twitter", response) == ShowPage(ResultPage.CONNECTED)


async def test_a_connect_that_waits_while_its_caller_is_blocked_attaches_nothing(house: House) -> None:
    code, well = await house.come_back(await house.begin()), asyncio.Event()
    house.platform.answer_next("exchange", well)
    completing = asyncio.create_task(house.complete(code))
    await house.platform.until_called("exchange")
    await house.store.set_block(CALLER.name, reason="stolen", operator="ada")
    await house.blocks.follow()
    well.set()
    with pytest.raises(ConnectRefused) as caught:
        await completing
    assert caught.value.reason is Reason.CALLER_NOT_PERMITTED
    assert await house.revoker.work_off("twitter") == 1, "the new grant is given back"
