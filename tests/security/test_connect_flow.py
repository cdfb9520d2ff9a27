"""The connect flow under attack (rows A1 to A3, A6, A8 to A10, A14): no account lands where it should not.

Rows A4 and A5, which need two servers, are in test_two_servers.py; A11 and A12 in test_callback_queries.py.
"""

import asyncio
import base64
import dataclasses
import hashlib
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from synposter_accounts import AccountStatus, ConnectMismatch, PlatformUnavailable, WrongPlatformUser

from server.accounts.callers import Caller, Permission
from server.accounts.errors import ConnectRefused, Reason
from server.accounts.model import Secret
from tests.e2e.conftest import PROFILE, Whole, browse

# --- A1: code injection (a code of another flow: test_a_code_of_another_flow_is_refused_by_its_challenge in e2e)


@pytest.mark.parametrize("flows", [500, pytest.param(10_000, marks=pytest.mark.long)])
async def test_a1_each_flow_has_a_challenge_of_its_own_of_a_verifier_that_stays_here(
    service: Whole, flows: int
) -> None:
    caller = Caller("web", frozenset(Permission), return_urls=frozenset({"https://app.test/"}))
    challenges, states = set(), set()
    for number in range(flows):
        begun = await service.app.connector.begin(
            caller, profile_id=f"p{number}", platform="twitter", scopes=(), return_url="https://app.test/",
            redirect_uri=None, account_id=None,
        )  # fmt: skip
        query = parse_qs(urlsplit(begun.authorization_url).query)
        stored = await service.app.store.request(begun.connect_id)
        assert stored is not None
        verifier = stored.code_verifier.reveal()
        digest = hashlib.sha256(verifier.encode()).digest()
        assert query["code_challenge_method"] == ["S256"] and 43 <= len(verifier) <= 128
        assert query["code_challenge"] == [base64.urlsafe_b64encode(digest).rstrip(b"=").decode()]
        assert verifier not in begun.authorization_url
        challenges.add(query["code_challenge"][0])
        states.add(query["state"][0])
    assert len(challenges) == len(states) == flows


# --- A2 and A3: somebody else's browser


async def test_a2_a_link_that_a_victim_finishes_gives_the_attacker_nothing(service: Whole) -> None:
    mallory = await service.accounts.begin_connect("mallory", "twitter", return_url=service.return_url)
    back = await browse(await service.sandbox.consent(mallory.authorization_url, "ada"))
    assert await service.sandbox.requests("token") == [], "the callback alone exchanges nothing"
    with pytest.raises(ConnectMismatch):
        await service.accounts.complete_connect("victim", completion_code=back["completion_code"])
    with pytest.raises(ConnectMismatch):
        await service.accounts.complete_connect("mallory", completion_code=back["completion_code"])
    assert await service.sandbox.requests("token") == []
    for profile in ("victim", "mallory"):
        assert [each async for each in service.accounts.list(profile)] == []


async def test_a2_another_caller_cannot_complete_and_the_flow_is_burnt(service: Whole) -> None:
    back = await service.come_back()
    completion_code = Secret(back["completion_code"])
    for name in ("other", "local"):
        with pytest.raises(ConnectRefused) as refused:
            await service.app.connector.complete(
                Caller(name, frozenset(Permission)),
                profile_id=PROFILE,
                completion_code=completion_code,
                response=None,
            )
        assert refused.value.reason is Reason.CONNECT_MISMATCH
    assert await service.sandbox.requests("token") == []


async def test_a2_only_the_true_pair_exchanges_and_once(service: Whole) -> None:
    await service.connect()
    assert len(await service.sandbox.requests("token")) == 1


async def test_a3_an_attackers_answer_opened_by_a_victim_links_nothing_to_the_victim(service: Whole) -> None:
    begun = await service.accounts.begin_connect("mallory", "twitter", return_url=service.return_url)
    stopped_short = await service.sandbox.consent(begun.authorization_url, "grace")
    back = await browse(stopped_short)  # by the victim, whose web app knows that it is the victim
    with pytest.raises(ConnectMismatch):
        await service.accounts.complete_connect("victim", completion_code=back["completion_code"])
    assert await service.sandbox.requests("token") == []
    assert [each async for each in service.accounts.list("victim")] == []


# --- A6: mix-up


async def test_a6_an_answer_at_another_platforms_path_ends_the_connect_and_reaches_no_token_endpoint(
    service: Whole,
) -> None:
    begun = await service.accounts.begin_connect(PROFILE, "twitter", return_url=service.return_url)
    callback = await service.sandbox.consent(begun.authorization_url, "ada")
    assert (await browse(callback.replace("/callback/twitter", "/callback/linkedin")))["error"] == "server_error"
    async with aiohttp.ClientSession() as browser, browser.get(callback, allow_redirects=False) as response:
        assert response.status == 410
    assert await service.sandbox.requests("token") == []


async def test_a6_an_answer_at_a_platform_that_is_not_registered_is_not_used_up(service: Whole) -> None:
    begun = await service.accounts.begin_connect(PROFILE, "twitter", return_url=service.return_url)
    callback = await service.sandbox.consent(begun.authorization_url, "ada")
    nowhere = callback.replace("/callback/twitter", "/callback/friendster")
    async with aiohttp.ClientSession() as browser, browser.get(nowhere, allow_redirects=False) as response:
        assert response.status == 404
    assert "completion_code" in await browse(callback)


@pytest.mark.parametrize("iss", ["https://x.com", "", "https://evil.test"])
async def test_a6_an_issuer_that_no_platform_promised_ends_the_connect(service: Whole, iss: str) -> None:
    begun = await service.accounts.begin_connect(PROFILE, "twitter", return_url=service.return_url)
    callback = await service.sandbox.consent(begun.authorization_url, "ada")
    back = await browse(f"{callback}&iss={iss}")
    assert ("error" in back) == bool(iss)
    assert await service.sandbox.requests("token") == []


# --- A8 and A9: who it is


async def test_a8_a_reconnect_that_ends_as_another_user_changes_nothing_and_its_grant_is_revoked(
    service: Whole,
) -> None:
    account = await service.connect("ada")
    with pytest.raises(WrongPlatformUser):
        await service.connect("grace", account_id=account.id)
    assert await service.accounts.get(account.id) == account
    await service.app.revoker.work_off("twitter")
    assert [grant["username"] for grant in await service.sandbox.ledger() if grant["alive"]] == ["ada"]


async def test_a9_handles_that_change_hands_merge_no_accounts(service: Whole) -> None:
    ada, grace = await service.connect("ada"), await service.connect("grace")
    await service.sandbox.rename("ada", "bob")
    await service.sandbox.rename("grace", "ada")
    again = await service.connect("ada")
    assert (again.id, again.platform_user_id, again.handle) == (grace.id, grace.platform_user_id, "ada")
    assert (await service.connect("bob")).id == ada.id
    accounts = {each.id: each.handle async for each in service.accounts.list(PROFILE)}
    assert accounts == {ada.id: "bob", grace.id: "ada"}


# --- A10: scopes


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        ("users.read tweet.read", {"offline.access", "tweet.write"}),
        ("users.read tweet.read tweet.write offline.access dm.read", set()),
    ],
    ids=["fewer", "more"],
)
async def test_a10_scopes_are_shown_as_granted_whatever_was_asked(
    service: Whole, granted: str, missing: set[str]
) -> None:
    back = await service.come_back(grant_scope=granted)
    [account] = await service.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    assert account.status is AccountStatus.ACTIVE
    assert (set(account.scopes), set(account.missing_scopes)) == (set(granted.split()), missing)


# --- A14: endpoints that are swapped meanwhile


async def test_a14_a_code_goes_to_the_token_endpoint_that_was_pinned_when_the_connect_began(service: Whole) -> None:
    platform = service.app.platforms["twitter"]
    back = await service.come_back()
    caught = asyncio.Event()

    async def evil(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caught.set()
        writer.close()

    trap = await asyncio.start_server(evil, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{trap.sockets[0].getsockname()[1]}/token"
    ours = platform._registration
    platform._registration = dataclasses.replace(ours, overrides={**ours.overrides, "token_endpoint": url})
    platform.endpoints = platform._registration.endpoints(platform._definition)
    [account] = await service.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    assert account.handle == "ada" and not caught.is_set()
    back = await service.come_back()
    with pytest.raises(PlatformUnavailable):
        await service.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    assert caught.is_set(), "what begins afterwards is pinned to the new one"
    trap.close()
