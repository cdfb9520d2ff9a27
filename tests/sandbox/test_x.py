"""The sandbox plays X: over real HTTP, with the rules and the words that X has."""

from urllib.parse import parse_qs, urlsplit

import pytest

from tests.sandbox.conftest import REDIRECT, SCOPES, RegisteredApp

BAD_CODE = {"error": "invalid_request", "error_description": "Value passed for the authorization code was invalid."}
BAD_TOKEN = {"error": "invalid_request", "error_description": "Value passed for the token was invalid."}


async def test_a_code_brings_tokens_once(app: RegisteredApp) -> None:
    code = await app.code()
    status, token = await app.exchange(code)
    assert status == 200
    assert token["token_type"] == "bearer" and token["expires_in"] == 7200 and token["scope"] == SCOPES
    assert (await app.me(token["access_token"]))[1]["data"]["username"] == "ada"
    assert await app.exchange(code) == (400, BAD_CODE)
    assert (await app.me(token["access_token"]))[0] == 401


async def test_a_code_is_good_for_its_time_its_redirect_uri_and_its_verifier(app: RegisteredApp) -> None:
    assert await app.exchange(await app.code(), code_verifier="w" * 43) == (400, BAD_CODE)
    assert await app.exchange(await app.code(), redirect_uri=REDIRECT + "/") == (400, BAD_CODE)
    await app.control.settings(code_seconds=0)
    assert await app.exchange(await app.code()) == (400, BAD_CODE)


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": None},
        {"code_challenge_method": None},
        {"code_challenge_method": "plain"},
        {"redirect_uri": REDIRECT + "/"},
        {"client_id": "stranger"},
        {"response_type": "token"},
    ],
    ids=str,
)
async def test_a_bad_authorization_request_shows_a_page_and_redirects_nowhere(
    app: RegisteredApp, changes: dict[str, str | None]
) -> None:
    async with app.http.get(app.url(**changes), allow_redirects=False) as response:
        assert response.status == 400
        assert "Sandbox" in await response.text()


async def test_the_secret_belongs_in_the_header_alone(app: RegisteredApp) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": "app", "client_secret": "secret"}
    for authorization in ("Nothing", app.header("app", "wrong"), app.header("stranger", "secret")):
        status, body = await app.post("/2/oauth2/token", form, authorization)
        assert status == 401
        assert body == {"error": "unauthorized_client", "error_description": "Missing valid authorization header"}


async def test_a_refresh_token_works_once_and_its_replay_kills_the_grant(app: RegisteredApp) -> None:
    _, first = await app.exchange(await app.code())
    status, second = await app.refresh(first["refresh_token"])
    assert status == 200 and second["refresh_token"] != first["refresh_token"]
    assert await app.refresh(first["refresh_token"]) == (400, BAD_TOKEN)
    assert await app.refresh(second["refresh_token"]) == (400, BAD_TOKEN)
    [grant] = await app.control.ledger()
    assert (grant["alive"], grant["replays"], grant["refreshes"]) == (False, 1, 1)


async def test_within_the_grace_a_replay_is_forgiven(app: RegisteredApp) -> None:
    await app.control.settings(replay="grace", grace_seconds=60)
    _, first = await app.exchange(await app.code())
    await app.refresh(first["refresh_token"])
    assert (await app.refresh(first["refresh_token"]))[0] == 200


async def test_without_offline_access_there_is_no_refresh_token(app: RegisteredApp) -> None:
    _, token = await app.exchange(await app.code(grant_scope="users.read tweet.read"))
    assert "refresh_token" not in token and token["scope"] == "users.read tweet.read"


async def test_revoking_either_token_ends_what_it_should(app: RegisteredApp) -> None:
    _, token = await app.exchange(await app.code())
    assert await app.revoke(token["access_token"]) == 200
    assert (await app.me(token["access_token"]))[0] == 401
    status, fresh = await app.refresh(token["refresh_token"])
    assert status == 200
    assert await app.revoke(fresh["refresh_token"]) == await app.revoke("unknown") == 200
    assert (await app.me(fresh["access_token"]))[0] == 401
    assert not (await app.control.ledger())[0]["alive"]


async def test_a_user_can_be_renamed_and_can_take_grants_back(app: RegisteredApp) -> None:
    _, token = await app.exchange(await app.code())
    await app.control.rename("ada", "countess")
    assert (await app.me(token["access_token"]))[1]["data"]["username"] == "countess"
    assert await app.control.revoke_user("countess") == 1
    assert await app.refresh(token["refresh_token"]) == (400, BAD_TOKEN)


async def test_a_page_escapes_what_it_shows(app: RegisteredApp) -> None:
    async with app.http.get(app.url(username="<script>alert(1)</script>", scope="<b>")) as response:
        text = await response.text()
    assert "<script>" not in text and "<b>" not in text
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


async def test_cancel_says_access_denied_and_returns_the_state(app: RegisteredApp) -> None:
    back = await app.control.consent(app.url(), "ada", "deny")
    query = parse_qs(urlsplit(back).query)
    assert (query["error"], query["state"]) == (["access_denied"], ["state-1"])
    assert "code" not in query


async def test_a_person_chooses_a_user_and_sees_what_the_app_wants(app: RegisteredApp) -> None:
    async with app.http.get(app.url()) as response:
        assert "Continue as @grace" in await response.text()
    async with app.http.get(app.url(username="grace")) as response:
        text = await response.text()
    assert all(f"<small>{scope}</small>" in text for scope in SCOPES.split())
    assert 'value="allow"' in text and 'value="deny"' in text


async def test_credentials_are_form_encoded_within_the_header(app: RegisteredApp) -> None:
    await app.control.add_client("an app", "se:cr%et+ä", REDIRECT)
    form = {"grant_type": "refresh_token", "refresh_token": "garbage"}
    assert await app.post("/2/oauth2/token", form, app.header("an app", "se:cr%et+ä")) == (400, BAD_TOKEN)


async def test_each_token_can_be_searched_for_in_all_output(app: RegisteredApp) -> None:
    code = await app.code()
    _, token = await app.exchange(code)
    assert code.startswith("sbx-code-canary-")
    assert token["access_token"].startswith("sbx-at-canary-")
    assert token["refresh_token"].startswith("sbx-rt-canary-")


async def test_an_access_token_ends_with_its_time_and_the_problem_is_told_as_x_does(app: RegisteredApp) -> None:
    await app.control.settings(access_token_seconds=0)
    status, problem = await app.me((await app.tokens())["access_token"])
    assert (status, problem["status"], problem["title"]) == (401, 401, "Unauthorized")


async def test_identity_needs_both_scopes(app: RegisteredApp) -> None:
    token = await app.tokens(grant_scope="users.read")
    assert (await app.me(token["access_token"]))[0] == 403


async def test_within_the_grace_two_racing_refreshes_leave_one_live_grant(app: RegisteredApp) -> None:
    await app.control.settings(replay="grace", grace_seconds=60)
    first = await app.tokens()
    racers = [(await app.refresh(first["refresh_token"]))[1] for _ in range(2)]
    assert (await app.refresh(racers[0]["refresh_token"]))[0] == 200
    [grant] = await app.control.ledger()
    assert grant["alive"]


async def test_a_token_of_another_app_is_neither_refreshed_nor_revoked(app: RegisteredApp) -> None:
    await app.control.add_client("other", "other", REDIRECT)
    token = await app.tokens()
    form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
    other = app.header("other", "other")
    assert await app.post("/2/oauth2/token", form, other) == (400, BAD_TOKEN)
    await app.post("/2/oauth2/revoke", {"token": token["refresh_token"]}, other)
    assert (await app.control.ledger())[0]["alive"]
