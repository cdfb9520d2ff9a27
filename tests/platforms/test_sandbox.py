"""X as the sandbox plays it: one account's life through the `Platform` port."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from sandbox.control import Control
from sandbox.ledger import App, Ledger
from sandbox.server import running
from server.accounts.errors import GrantDead, OurFault, OutcomeUnknown, PlatformRefused, TokenRejected
from server.accounts.grants import TokenSet
from server.accounts.model import Secret
from server.platforms.http import Sender
from server.platforms.platform import RegisteredPlatform
from server.platforms.registration import Registration
from server.platforms.twitter import TWITTER
from tests.platforms.peer import REDIRECT_URI

VERIFIER = Secret("v" * 43)
CLIENT_ID, CLIENT_SECRET = "client:with colon", "a secret: with+signs/&%=é"


@pytest.fixture
async def played() -> AsyncIterator[Control]:
    ledger = Ledger()
    ledger.apps[CLIENT_ID] = App(CLIENT_ID, CLIENT_SECRET, [REDIRECT_URI])
    async with running(ledger=ledger) as sandbox, Control(sandbox.url) as control:
        yield control


@pytest.fixture
def platform(played: Control, sender: Sender) -> RegisteredPlatform:
    return at(played.url, sender, CLIENT_SECRET)


def at(url: str, sender: Sender, client_secret: str) -> RegisteredPlatform:
    overrides = {
        "authorization_endpoint": f"{url}/i/oauth2/authorize",
        "token_endpoint": f"{url}/2/oauth2/token",
        "revocation_endpoint": f"{url}/2/oauth2/revoke",
        "identity_endpoint": f"{url}/2/users/me",
    }
    registration = Registration(CLIENT_ID, Secret(client_secret), overrides)
    return RegisteredPlatform(TWITTER, registration, sender, lambda: datetime.now(UTC))


async def code_for(platform: RegisteredPlatform, played: Control) -> Secret:
    url = platform.authorization_url(
        redirect_uri=REDIRECT_URI, scopes=TWITTER.default_scopes, state=Secret("s" * 43), code_verifier=VERIFIER
    )
    [code] = parse_qs(urlsplit(await played.consent(url, "ada")).query)["code"]
    return Secret(code)


async def exchanged(platform: RegisteredPlatform, code: Secret, verifier: Secret = VERIFIER) -> TokenSet:
    return await platform.exchange(
        endpoints=platform.endpoints,
        code=code,
        code_verifier=verifier,
        redirect_uri=REDIRECT_URI,
        scopes=TWITTER.default_scopes,
    )


async def connected(platform: RegisteredPlatform, played: Control) -> TokenSet:
    return await exchanged(platform, await code_for(platform, played))


async def test_a_code_becomes_tokens_that_are_refreshed_identified_and_revoked(
    platform: RegisteredPlatform, played: Control
) -> None:
    first = await connected(platform, played)
    assert set(first.scopes) == set(TWITTER.default_scopes)
    [identity] = await platform.identify(first)
    assert identity.handle == "ada" and identity.platform_user_id.isdigit() and identity.avatar_url
    second = await platform.refresh(first)
    assert second.refresh_token not in (None, first.refresh_token)
    assert second.refresh_token is not None
    for token in (second.refresh_token, second.access_token):
        await platform.revoke(token, platform.endpoints.revocation)
    with pytest.raises(GrantDead):
        await platform.refresh(second)
    with pytest.raises(TokenRejected):
        await platform.identify(second)


async def test_a_spent_refresh_token_is_dead(platform: RegisteredPlatform, played: Control) -> None:
    first = await connected(platform, played)
    await platform.refresh(first)
    with pytest.raises(GrantDead):
        await platform.refresh(first)


async def test_a_code_works_once_and_only_with_its_verifier(platform: RegisteredPlatform, played: Control) -> None:
    code = await code_for(platform, played)
    await exchanged(platform, code)
    with pytest.raises(GrantDead):
        await exchanged(platform, code)
    stolen = await code_for(platform, played)
    with pytest.raises((GrantDead, OurFault)):
        await exchanged(platform, stolen, Secret("w" * 43))
    assert [grant["alive"] for grant in await played.ledger()].count(True) <= 1


async def test_a_wrong_client_secret_is_our_fault_and_no_grants(
    platform: RegisteredPlatform, played: Control, sender: Sender
) -> None:
    held = await connected(platform, played)
    with pytest.raises(OurFault):
        await at(played.url, sender, "wrong").refresh(held)
    assert (await platform.refresh(held)).refresh_token


async def test_an_answer_dropped_before_the_rotation_leaves_the_token_good(
    platform: RegisteredPlatform, played: Control
) -> None:
    held = await connected(platform, played)
    await played.fault("token", "drop_before")
    with pytest.raises(OutcomeUnknown):
        await platform.refresh(held)
    assert (await platform.refresh(held)).refresh_token != held.refresh_token


async def test_an_answer_dropped_after_the_rotation_looks_the_same_and_the_token_is_spent(
    platform: RegisteredPlatform, played: Control
) -> None:
    held = await connected(platform, played)
    await played.fault("token", "drop_after")
    with pytest.raises(OutcomeUnknown):
        await platform.refresh(held)
    with pytest.raises(GrantDead):
        await platform.refresh(held)


async def test_a_rate_limit_says_how_long_to_wait(platform: RegisteredPlatform, played: Control) -> None:
    held = await connected(platform, played)
    await played.fault("token", "rate_limited", retry_after="90")
    with pytest.raises(PlatformRefused) as caught:
        await platform.refresh(held)
    assert caught.value.retry_after is not None and caught.value.retry_after.total_seconds() == 90


async def test_an_empty_refresh_token_leaves_the_one_that_is_held(
    platform: RegisteredPlatform, played: Control
) -> None:
    held = await connected(platform, played)
    await played.fault("token", "empty_refresh_token")
    assert (await platform.refresh(held)).refresh_token == held.refresh_token
