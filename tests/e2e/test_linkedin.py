"""LinkedIn from end to end: the secret in the body, no PKCE, commas, sixty days, and no refresh token."""

from datetime import timedelta

import pytest
from synposter_accounts import Account, AccountStatus, ConnectFailed, PlatformRevocation, StatusReason

from tests.e2e.conftest import PROFILE, Whole, browse


async def connect(whole: Whole, decision: str = "allow") -> dict[str, str]:
    begun = await whole.accounts.begin_connect(PROFILE, "linkedin", return_url=whole.return_url)
    assert "code_challenge" not in begun.authorization_url
    return await browse(await whole.sandbox.consent(begun.authorization_url, "ada", decision))


async def connected(whole: Whole) -> Account:
    back = await connect(whole)
    [account] = await whole.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    return account


async def test_a_member_connects_and_has_a_name_but_no_handle(whole: Whole) -> None:
    account = await connected(whole)
    assert (account.platform, account.display_name, account.handle) == ("linkedin", "Ada Lovelace", "")
    assert account.scopes == ("openid", "profile", "w_member_social")
    assert account.missing_scopes == ()
    assert account.platform_user_id.startswith("li-")


async def test_a_member_account_ends_when_its_token_does_and_comes_back_by_a_reconnect(whole: Whole) -> None:
    account = await connected(whole)
    whole.clock.offset += timedelta(days=59)
    await whole.app.refresher.run_once()
    assert (await whole.accounts.get(account.id)).status is AccountStatus.ACTIVE
    whole.clock.offset += timedelta(days=1, minutes=1)
    await whole.app.refresher.run_once()
    ended = await whole.accounts.get(account.id)
    assert (ended.status, ended.status_reason) == (AccountStatus.EXPIRED, StatusReason.NOT_REFRESHABLE)
    assert (await connected(whole)).id == account.id


async def test_a_members_no_is_told_as_a_no(whole: Whole) -> None:
    assert (await connect(whole, "deny"))["error"] == "access_denied"


async def test_a_revoke_is_confirmed(whole: Whole) -> None:
    account = await connected(whole)
    assert (await whole.accounts.revoke(account.id)).platform_revocation is PlatformRevocation.CONFIRMED
    assert not any(grant["alive"] for grant in await whole.sandbox.ledger())


async def test_one_person_on_two_platforms_is_two_accounts(whole: Whole) -> None:
    linkedin, x = await connected(whole), await whole.connect("ada")
    assert [each.id async for each in whole.accounts.list(PROFILE)] == [linkedin.id, x.id]
    assert [each.id async for each in whole.accounts.list(PROFILE, platform="linkedin")] == [linkedin.id]


async def test_an_answer_of_x_at_linkedins_callback_ends_the_connect(whole: Whole) -> None:
    begun = await whole.accounts.begin_connect(PROFILE, "twitter", return_url=whole.return_url)
    back = await whole.sandbox.consent(begun.authorization_url, "ada")
    mixed = await browse(back.replace("/callback/twitter", "/callback/linkedin"))
    assert mixed["error"] == "server_error"
    assert await whole.sandbox.requests("token") == []


@pytest.mark.parametrize(("fault", "error"), [("invalid_client", ConnectFailed)])
async def test_a_refused_registration_fails_the_connect(whole: Whole, fault: str, error: type[Exception]) -> None:
    await whole.sandbox.fault("token", fault)
    back = await connect(whole)
    with pytest.raises(error):
        await whole.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
