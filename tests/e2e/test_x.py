"""X from end to end: a real client, a real server over a real database, a real authorization server over HTTP."""

import asyncio
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest
from synposter_accounts import (
    AccountNotFound,
    AccountStatus,
    AuthorizationResponse,
    CodeRefused,
    ConnectExpired,
    ConnectFailed,
    ConnectMismatch,
    ConnectNotFound,
    IdentityUnavailable,
    InvalidField,
    PlatformRevocation,
    PlatformUnavailable,
    StatusReason,
    UnknownPlatform,
    UserDenied,
    WrongPlatformUser,
)

from server.accounts.model import Secret
from server.platforms.registration import Registration
from tests.e2e.conftest import PROFILE, Whole, browse, redirect_uris


async def test_a_user_connects_an_account_and_it_is_listed(whole: Whole) -> None:
    account = await whole.connect("ada")
    assert account.handle == "ada"
    assert account.status is AccountStatus.ACTIVE
    assert account.scopes == ("offline.access", "tweet.read", "tweet.write", "users.read")
    assert account.missing_scopes == ()
    assert account.avatar_url.startswith("https://")
    assert await whole.accounts.get(account.id) == account
    assert [each async for each in whole.accounts.list(PROFILE)] == [account]


async def test_a_registration_with_odd_characters_is_sent_as_rfc_6749_wants_it(whole: Whole) -> None:
    odd = Registration(
        "client:with colon", Secret("a secret: with+signs/&%=é"), whole.app.platforms["twitter"]._registration.overrides
    )
    await whole.sandbox.add_client(odd.client_id, odd.client_secret.reveal(), *redirect_uris(whole.local))
    whole.app.platforms["twitter"]._registration = odd
    account = await whole.connect("ada")
    await whole.refresh_due()
    assert (await whole.accounts.get(account.id)).last_refresh_time is not None
    revoked = await whole.accounts.revoke(account.id)
    assert revoked.platform_revocation is PlatformRevocation.CONFIRMED


async def test_a_user_who_says_no(whole: Whole) -> None:
    back = await whole.come_back(decision="deny")
    assert back["error"] == "access_denied"
    assert "completion_code" not in back


async def test_a_caller_with_its_own_redirect_uri_completes_with_the_response_itself(whole: Whole) -> None:
    redirect_uri = f"{whole.local.public_url}/your-app/callback"
    for decision in ("deny", "allow"):
        begun = await whole.accounts.begin_connect(PROFILE, "twitter", redirect_uri=redirect_uri)
        back = await whole.sandbox.consent(begun.authorization_url, "ada", decision)
        assert back.startswith(redirect_uri)
        query = dict(parse_qsl(urlsplit(back).query))
        response = AuthorizationResponse(**{name: query.get(name, "") for name in ("state", "code", "error")})
        if decision == "deny":
            with pytest.raises(UserDenied):
                await whole.accounts.complete_connect(PROFILE, authorization_response=response)
        else:
            [account] = await whole.accounts.complete_connect(PROFILE, authorization_response=response)
            assert account.handle == "ada"


async def test_an_unknown_state_or_code_is_no_connect(whole: Whole) -> None:
    with pytest.raises(ConnectNotFound):
        await whole.accounts.complete_connect(PROFILE, completion_code="x" * 43)
    with pytest.raises(ConnectNotFound):
        await whole.accounts.complete_connect(
            PROFILE, authorization_response=AuthorizationResponse(state="x" * 43, code="y")
        )


async def test_a_code_that_is_refused(whole: Whole) -> None:
    await whole.sandbox.settings(code_seconds=0)
    back = await whole.come_back()
    for _ in range(2):
        with pytest.raises(CodeRefused):
            await whole.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    assert len(await whole.sandbox.requests("token")) == 1


async def test_a_completion_after_thirty_seconds_is_not_even_tried(whole: Whole) -> None:
    back = await whole.come_back()
    whole.clock.offset += timedelta(seconds=31)
    with pytest.raises(ConnectExpired):
        await whole.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    assert await whole.sandbox.requests("token") == []


async def test_another_profile_cannot_complete_and_no_code_is_exchanged(whole: Whole) -> None:
    back = await whole.come_back()
    with pytest.raises(ConnectMismatch):
        await whole.accounts.complete_connect("victim", completion_code=back["completion_code"])
    with pytest.raises(ConnectMismatch):
        await whole.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    assert await whole.sandbox.requests("token") == []


async def test_a_code_of_another_flow_is_refused_by_its_challenge(whole: Whole) -> None:
    one = await whole.accounts.begin_connect(PROFILE, "twitter", return_url=whole.return_url)
    two = await whole.accounts.begin_connect(PROFILE, "twitter", return_url=whole.return_url)
    first = await whole.sandbox.consent(one.authorization_url, "ada")
    second = await whole.sandbox.consent(two.authorization_url, "grace")
    code_of_second = second.split("code=")[1].split("&")[0]
    code_of_first = first.split("code=")[1].split("&")[0]
    back = await browse(first.replace(code_of_first, code_of_second))
    with pytest.raises(CodeRefused):
        await whole.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    assert [each async for each in whole.accounts.list(PROFILE)] == []


async def test_fewer_scopes_than_asked(whole: Whole) -> None:
    back = await whole.come_back(grant_scope="users.read tweet.read offline.access")
    [account] = await whole.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    assert account.status is AccountStatus.ACTIVE
    assert account.missing_scopes == ("tweet.write",)


async def test_no_refresh_token(whole: Whole) -> None:
    back = await whole.come_back(grant_scope="users.read tweet.read")
    [account] = await whole.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    assert account.missing_scopes == ("offline.access", "tweet.write")
    whole.clock.offset += timedelta(hours=2, seconds=1)
    await whole.app.refresher.run_once()
    expired = await whole.accounts.get(account.id)
    assert (expired.status, expired.status_reason) == (AccountStatus.EXPIRED, StatusReason.NOT_REFRESHABLE)


async def test_an_identity_call_that_fails_takes_the_grant_back(whole: Whole) -> None:
    await whole.sandbox.fault("identity", "status_before", status=503)
    back = await whole.come_back()
    with pytest.raises(IdentityUnavailable):
        await whole.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    await whole.app.revoker.work_off("twitter")
    assert not any(grant["alive"] for grant in await whole.sandbox.ledger())
    assert [each async for each in whole.accounts.list(PROFILE)] == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"fault": "status_before", "status": 503}, PlatformUnavailable),
        ({"fault": "drop_before"}, PlatformUnavailable),
        ({"fault": "drop_after"}, PlatformUnavailable),
        ({"fault": "html"}, PlatformUnavailable),
        ({"fault": "huge"}, PlatformUnavailable),
        ({"fault": "rate_limited"}, PlatformUnavailable),
        ({"fault": "invalid_client"}, ConnectFailed),
        ({"fault": "redirect", "location": "http://127.0.0.1:9/elsewhere"}, ConnectFailed),
        ({"fault": "invalid_grant"}, CodeRefused),
    ],
    ids=lambda value: value["fault"] if isinstance(value, dict) else value.__name__,
)
async def test_an_exchange_that_goes_wrong_has_a_reason_and_leaves_no_account(
    whole: Whole, fault: dict[str, object], error: type[Exception]
) -> None:
    await whole.sandbox.fault("token", **fault)  # type: ignore[arg-type]
    back = await whole.come_back()
    with pytest.raises(error):
        await whole.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    assert [each async for each in whole.accounts.list(PROFILE)] == []
    assert len(await whole.sandbox.requests("token")) == 1


async def test_fifty_browsers_with_one_state_bring_one_exchange(whole: Whole) -> None:
    begun = await whole.accounts.begin_connect(PROFILE, "twitter")
    callback = await whole.sandbox.consent(begun.authorization_url, "ada")

    async def visit(browser: aiohttp.ClientSession) -> tuple[int, str]:
        async with browser.get(callback, allow_redirects=False) as response:
            return response.status, await response.text()

    async with aiohttp.ClientSession() as browser:
        answers = await asyncio.gather(*(visit(browser) for _ in range(50)))
    assert sorted(status for status, _ in answers) == [200] + [410] * 49
    assert len({text for status, text in answers if status == 410}) == 1
    assert len(await whole.sandbox.requests("token")) == 1


async def test_a_refresh_rotates_and_the_account_keeps_its_handle(whole: Whole) -> None:
    account = await whole.connect()
    [before] = await whole.sandbox.ledger()
    await whole.refresh_due()
    [after] = await whole.sandbox.ledger()
    assert after["refreshes"] == 1 and after["refresh_token"] != before["refresh_token"]
    refreshed = await whole.accounts.get(account.id)
    assert refreshed.last_refresh_time is not None
    assert refreshed.update_time == account.update_time
    assert len(await whole.sandbox.requests("identity")) == 1


async def test_a_grant_taken_back_at_x_expires_the_account_and_a_reconnect_keeps_its_id(whole: Whole) -> None:
    account = await whole.connect("grace")
    await whole.sandbox.revoke_user("grace")
    await whole.refresh_due()
    expired = await whole.accounts.get(account.id)
    assert (expired.status, expired.status_reason) == (AccountStatus.EXPIRED, StatusReason.REFRESH_REJECTED)
    again = await whole.connect("grace", account_id=account.id)
    assert (again.id, again.status) == (account.id, AccountStatus.ACTIVE)


@pytest.mark.parametrize("fault", ["status_before", "drop_before", "html", "rate_limited", "invalid_client"])
async def test_a_bad_hour_of_x_expires_nobody(whole: Whole, fault: str) -> None:
    account = await whole.connect()
    await whole.sandbox.fault("token", fault)
    await whole.refresh_due()
    assert (await whole.accounts.get(account.id)).status is AccountStatus.ACTIVE
    [grant] = await whole.sandbox.ledger()
    assert grant["alive"] and grant["refreshes"] == 0


async def test_an_answer_lost_after_the_rotation_ends_with_the_reason_that_it_was_lost(whole: Whole) -> None:
    account = await whole.connect()
    await whole.sandbox.fault("token", "drop_after")
    await whole.refresh_due()
    assert (await whole.accounts.get(account.id)).status is AccountStatus.ACTIVE
    whole.clock.offset += timedelta(minutes=15)
    await whole.app.refresher.run_once()
    lost = await whole.accounts.get(account.id)
    assert (lost.status, lost.status_reason) == (AccountStatus.EXPIRED, StatusReason.REFRESH_OUTCOME_LOST)
    assert len(await whole.sandbox.requests("token")) == 3


@pytest.mark.parametrize("value", [0, -1, 1e18, "3600", "soon", None, True])
async def test_a_hostile_expires_in_is_a_refresh_all_the_same(whole: Whole, value: object) -> None:
    account = await whole.connect()
    await whole.sandbox.fault("token", "expires_in", value=value)
    await whole.refresh_due()
    after = await whole.accounts.get(account.id)
    assert after.status is AccountStatus.ACTIVE and after.last_refresh_time is not None


@pytest.mark.parametrize("fault", ["no_refresh_token", "empty_refresh_token"])
async def test_a_refresh_without_a_new_refresh_token_keeps_the_old_one(whole: Whole, fault: str) -> None:
    await whole.connect()
    await whole.sandbox.settings(replay="grace", grace_seconds=3600)
    await whole.sandbox.fault("token", fault)
    await whole.refresh_due()
    await whole.refresh_due()
    sent = [each["sent"] for each in await whole.sandbox.requests("token") if each["grant_type"] == "refresh_token"]
    assert len(sent) == 2 and sent[0] == sent[1]


async def test_a_renamed_handle_is_noticed(whole: Whole) -> None:
    account = await whole.connect()
    await whole.sandbox.rename("ada", "countess")
    whole.clock.offset += timedelta(minutes=2)
    await whole.app.identities.work_off("twitter")
    assert (await whole.accounts.get(account.id)).handle == "countess"


async def test_a_reconnect_as_another_user_changes_nothing(whole: Whole) -> None:
    account = await whole.connect("ada")
    with pytest.raises(WrongPlatformUser):
        await whole.connect("grace", account_id=account.id)
    assert await whole.accounts.get(account.id) == account
    await whole.app.revoker.work_off("twitter")
    assert [grant["username"] for grant in await whole.sandbox.ledger() if grant["alive"]] == ["ada"]


async def test_a_revoke_is_confirmed_by_the_platform_and_repeats_its_answer(whole: Whole) -> None:
    account = await whole.connect()
    for _ in range(2):
        revoked = await whole.accounts.revoke(account.id)
        assert revoked.account.status is AccountStatus.REVOKED
        assert revoked.platform_revocation is PlatformRevocation.CONFIRMED
    assert not any(grant["alive"] for grant in await whole.sandbox.ledger())
    assert len(await whole.sandbox.requests("revoke")) == 2


async def test_a_revoke_that_the_platform_does_not_take_is_pending_until_it_does(whole: Whole) -> None:
    account = await whole.connect()
    await whole.sandbox.fault("revoke", "status_before", status=503)
    assert (await whole.accounts.revoke(account.id)).platform_revocation is PlatformRevocation.PENDING
    whole.clock.offset += timedelta(minutes=1)
    await whole.app.revoker.work_off("twitter")
    assert (await whole.accounts.revoke(account.id)).platform_revocation is PlatformRevocation.CONFIRMED
    assert not any(grant["alive"] for grant in await whole.sandbox.ledger())


async def test_a_revoke_during_a_refresh_leaves_nothing_live_at_the_platform(whole: Whole) -> None:
    account = await whole.connect()
    await whole.sandbox.fault("token", "hold_after", only="refresh")
    refreshing = asyncio.create_task(whole.refresh_due())
    await whole.sandbox.until_held()
    await whole.accounts.revoke(account.id)
    await whole.sandbox.release()
    await refreshing
    await whole.app.revoker.work_off("twitter")
    assert not any(grant["alive"] for grant in await whole.sandbox.ledger())
    after = await whole.accounts.revoke(account.id)
    assert after.platform_revocation is PlatformRevocation.CONFIRMED


async def test_bad_input_names_the_field_and_changes_nothing(whole: Whole) -> None:
    for fields, field in (
        ({"profile_id": "no spaces"}, "profile_id"),
        ({"profile_id": ""}, "profile_id"),
        ({"return_url": "https://evil.test/"}, "return_url"),
        ({"account_id": "not-a-uuid"}, "account_id"),
        ({"scopes": ["dm.everything"]}, "scopes"),
    ):
        arguments: dict[str, object] = {"profile_id": PROFILE, "platform": "twitter", "return_url": whole.return_url}
        with pytest.raises(InvalidField) as caught:
            await whole.accounts.begin_connect(**{**arguments, **fields})  # type: ignore[arg-type]
        assert list(caught.value.field_violations) == [field]
    with pytest.raises(UnknownPlatform) as unknown:
        await whole.accounts.begin_connect(PROFILE, "friendster", return_url=whole.return_url)
    assert unknown.value.metadata["known"] == "linkedin, twitter"
    with pytest.raises(AccountNotFound):
        await whole.accounts.get("01930000-0000-7000-8000-000000000000")
    count = whole.app.engine.database.execute_sql("SELECT count(*) FROM authorization_requests").fetchone()[0]
    assert count == 0
