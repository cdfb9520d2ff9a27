"""A connect ends as it was allowed to begin, or not at all: callers that are gone, blocked or may less meanwhile."""

import dataclasses

import pytest

from server.accounts.callers import Caller, Permission
from server.accounts.errors import CallerNotPermitted, UnknownPlatform
from server.accounts.flow import AuthorizationResponse, ResultPage, SendBrowser, ShowPage
from server.accounts.model import Secret
from tests.accounts.conftest import House
from tests.accounts.script import CALLER, OPERATOR

FAILED = ShowPage(ResultPage.FAILED)
LESS = {
    "removed": None,
    "may not connect": {"permissions": frozenset({Permission.READ})},
    "another profile": {"profiles": ("other/",)},
    "another platform": {"platforms": frozenset({"linkedin"})},
}


def become(house: House, caller: Caller, less: dict[str, object] | None) -> None:
    """The configuration with which the process was started anew."""
    if less is None:
        del house.callers[caller.name]
    else:
        house.callers[caller.name] = dataclasses.replace(caller, **less)  # type: ignore[arg-type]


@pytest.mark.parametrize("less", [*LESS.values(), {"return_urls": frozenset()}], ids=[*LESS, "another return url"])
async def test_no_browser_is_sent_on_for_a_caller_that_is_gone_and_its_code_is_not_kept(
    house: House, less: dict[str, object] | None
) -> None:
    response = AuthorizationResponse(Secret(await house.begin()), Secret("code"))
    become(house, CALLER, less)
    assert await house.callback.answer("twitter", response) == FAILED
    denied = dataclasses.replace(response, code=None, error="access_denied")
    assert await house.callback.answer("twitter", denied) == FAILED
    assert house.platform.calls == []
    house.callers[CALLER.name] = CALLER
    assert isinstance(await house.callback.answer("twitter", response), SendBrowser), "the state was not used up"


@pytest.mark.parametrize("less", [*LESS.values(), {"allow_shim_completion": False}], ids=[*LESS, "not by itself"])
async def test_the_callback_completes_nothing_for_a_caller_that_is_gone(
    house: House, less: dict[str, object] | None
) -> None:
    response = AuthorizationResponse(Secret(await house.begin(OPERATOR, return_url=None)), Secret("code"))
    become(house, OPERATOR, less)
    assert await house.callback.answer("twitter", response) == FAILED
    assert house.platform.calls == []
    house.callers[OPERATOR.name] = OPERATOR
    assert await house.callback.answer("twitter", response) == ShowPage(ResultPage.CONNECTED)


async def test_a_blocked_callers_browsers_are_sent_nowhere(house: House) -> None:
    response = AuthorizationResponse(Secret(await house.begin()), Secret("code"))
    await house.store.set_block(CALLER.name, reason="stolen", operator="ops")
    await house.blocks.follow()
    assert await house.callback.answer("twitter", response) == FAILED


@pytest.mark.parametrize("less", [{"profiles": ("other/",)}, {"platforms": frozenset({"linkedin"})}])
async def test_what_a_caller_may_not_see_any_more_it_cannot_complete(house: House, less: dict[str, object]) -> None:
    code = await house.come_back(await house.begin())
    with pytest.raises(CallerNotPermitted):
        await house.complete(code, dataclasses.replace(CALLER, **less))  # type: ignore[arg-type]
    assert house.platform.calls == []
    assert [account.handle for account in await house.complete(code)] == ["ada"]


async def test_a_connect_to_a_platform_that_was_taken_out_of_the_configuration_is_refused_and_not_used_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = await house.come_back(await house.begin())
    with monkeypatch.context() as configuration:
        configuration.setattr(house.connector, "_platforms", {})
        configuration.setattr(house.connector, "_gates", {})
        with pytest.raises(UnknownPlatform):
            await house.complete(code)
    assert [account.handle for account in await house.complete(code)] == ["ada"]
