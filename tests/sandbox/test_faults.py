"""What the sandbox does wrong on command, as the other side of the connection sees it."""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from tests.sandbox.conftest import RegisteredApp


async def answer(app: RegisteredApp, refresh_token: str, seconds: float = 5.0) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a refresh. Raises what a client meets."""
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    async with app.http.post(
        app.control.url + "/2/oauth2/token",
        data=form,
        headers={"Authorization": app.basic},
        allow_redirects=False,
        timeout=aiohttp.ClientTimeout(total=seconds),
    ) as response:
        return response.status, dict(response.headers), await response.read()


async def refreshes(app: RegisteredApp) -> int:
    return int((await app.control.ledger())[0]["refreshes"])


@pytest.mark.parametrize(
    ("fault", "status", "acted"),
    [
        ({"fault": "status_before"}, 503, 0),
        ({"fault": "status_after", "status": 502}, 502, 1),
        ({"fault": "rate_limited", "retry_after": 90}, 429, 0),
        ({"fault": "invalid_grant"}, 400, 0),
        ({"fault": "invalid_client"}, 401, 0),
        ({"fault": "dead_token"}, 400, 0),
        ({"fault": "redirect", "location": "http://127.0.0.1:9/"}, 307, 0),
        ({"fault": "html"}, 200, 0),
        ({"fault": "html_after"}, 200, 1),
    ],
    ids=lambda value: value["fault"] if isinstance(value, dict) else str(value),
)
async def test_a_wrong_answer_comes_before_or_after_the_rotation(
    app: RegisteredApp, fault: dict[str, Any], status: int, acted: int
) -> None:
    token = await app.tokens()
    await app.control.fault("token", **fault)
    seen, headers, _ = await answer(app, token["refresh_token"])
    assert (seen, await refreshes(app)) == (status, acted)
    if "retry_after" in fault:
        assert headers["Retry-After"] == "90"
    if "location" in fault:
        assert headers["Location"] == fault["location"]


@pytest.mark.parametrize(("fault", "acted"), [("drop_before", 0), ("drop_after", 1)])
async def test_the_connection_drops_before_or_after_the_rotation(app: RegisteredApp, fault: str, acted: int) -> None:
    token = await app.tokens()
    await app.control.fault("token", fault)
    with pytest.raises(aiohttp.ClientError):
        await answer(app, token["refresh_token"])
    assert await refreshes(app) == acted


@pytest.mark.parametrize(("fault", "acted"), [("hang", 0), ("hang_after", 1), ("drip", 0)])
async def test_a_slow_platform_outlasts_its_client(app: RegisteredApp, fault: str, acted: int) -> None:
    token = await app.tokens()
    await app.control.fault("token", fault)
    with pytest.raises(TimeoutError):
        await answer(app, token["refresh_token"], seconds=0.2)
    assert await refreshes(app) == acted


async def test_a_hang_ends_after_its_seconds_and_rotates_once(app: RegisteredApp) -> None:
    token = await app.tokens()
    for fault in ("hang", "hang_after"):
        await app.control.fault("token", fault, seconds=0.01)
        status, token = await app.refresh(token["refresh_token"])
        assert status == 200
    assert await refreshes(app) == 2


async def test_a_huge_answer_goes_on_past_any_cap(app: RegisteredApp) -> None:
    token = await app.tokens()
    await app.control.fault("token", "huge")
    form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
    headers = {"Authorization": app.basic}
    async with app.http.post(app.control.url + "/2/oauth2/token", data=form, headers=headers) as response:
        await response.content.readexactly(8 << 20)


@pytest.mark.parametrize(("fault", "acted"), [("hold_before", 0), ("hold_after", 1)])
async def test_a_held_request_stands_before_or_after_the_rotation_until_it_is_released(
    app: RegisteredApp, fault: str, acted: int
) -> None:
    token = await app.tokens()
    await app.control.fault("token", fault, only="refresh")
    refreshing = asyncio.create_task(app.refresh(token["refresh_token"]))
    await app.control.until_held()
    assert (await refreshes(app), refreshing.done()) == (acted, False)
    await app.control.release()
    assert (await refreshing)[0] == 200
    assert await refreshes(app) == 1


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ({"fault": "no_refresh_token"}, ("refresh_token", None)),
        ({"fault": "empty_refresh_token"}, ("refresh_token", "")),
        ({"fault": "expires_in", "value": "soon"}, ("expires_in", "soon")),
        ({"fault": "expires_in", "value": None}, ("expires_in", None)),
        ({"fault": "fewer_scopes", "value": ["users.read"]}, ("scope", "users.read")),
    ],
    ids=str,
)
async def test_a_token_response_has_one_thing_wrong(
    app: RegisteredApp, fault: dict[str, Any], seen: tuple[str, object]
) -> None:
    await app.control.fault("token", **fault)
    member, value = seen
    assert (await app.tokens()).get(member) == value


@pytest.mark.parametrize("path", ["/2/users/me", "/v2/userinfo"])
async def test_identity_is_somebody_else(app: RegisteredApp, path: str) -> None:
    token = await app.tokens()
    await app.control.fault("identity", "wrong_id")
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    async with app.http.get(app.control.url + path, headers=headers) as response:
        body = await response.json()
    assert body.get("data", body).get("id", body.get("sub")) == "999"


async def test_an_issuer_comes_with_the_authorization_response(app: RegisteredApp) -> None:
    await app.control.fault("authorize", "iss", value="https://evil.test/?a=b")
    query = parse_qs(urlsplit(await app.control.consent(app.url(), "ada")).query)
    assert query["iss"] == ["https://evil.test/?a=b"]
    assert "code" in query


async def test_the_consent_page_has_faults_too(app: RegisteredApp) -> None:
    await app.control.fault("authorize", "status_before", status=500)
    with pytest.raises(AssertionError, match="500 at the consent page"):
        await app.control.consent(app.url(), "ada")


async def test_a_fault_is_for_its_grant_type_and_lasts_for_its_times(app: RegisteredApp) -> None:
    await app.control.fault("token", "status_before", only="refresh", times=2)
    token = await app.tokens()
    seen = [(await answer(app, token["refresh_token"]))[0] for _ in range(3)]
    assert seen == [503, 503, 200]
    assert [each["fault"] for each in await app.control.requests("token")] == [
        None, "status_before", "status_before", None,
    ]  # fmt: skip


async def test_a_fault_without_end_lasts_until_faults_are_cleared(app: RegisteredApp) -> None:
    token = await app.tokens()
    await app.control.fault("token", "status_before", times=-1)
    assert {(await answer(app, token["refresh_token"]))[0] for _ in range(5)} == {503}
    await app.control.clear_faults()
    assert (await answer(app, token["refresh_token"]))[0] == 200


@pytest.mark.parametrize(
    "order",
    [
        {"at": "token", "fault": "earthquake"},
        {"at": "moon", "fault": "hang"},
        {"at": "token", "fault": "iss"},
        {"at": "identity", "fault": "hang", "only": "refresh"},
        {"at": "token", "fault": "hang", "second": 3},
    ],
    ids=str,
)
async def test_an_order_that_would_never_show_itself_is_refused(app: RegisteredApp, order: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="400"):
        await app.control.fault(**order)


async def test_without_keep_alive_each_answer_says_that_its_connection_ends(app: RegisteredApp) -> None:
    token = await app.tokens()
    await app.control.settings(keep_alive=False)
    said = []
    for _ in range(2):
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        async with app.http.get(f"{app.control.url}/2/users/me", headers=headers) as response:
            said.append((response.status, response.headers.get("Connection")))
    assert said == [(200, "close")] * 2
