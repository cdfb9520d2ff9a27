"""Connecting: who may finish what was begun, how often, and what is left when it fails."""

import asyncio
import dataclasses
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from server.accounts.connect import hashed
from server.accounts.errors import (
    AccountError,
    AccountNotFound,
    CallerNotPermitted,
    GrantDead,
    InvalidField,
    NotSent,
    OurFault,
    OutcomeUnknown,
    PlatformRefused,
    Reason,
    UnknownPlatform,
)
from server.accounts.flow import AuthorizationResponse, ResultPage, SendBrowser, ShowPage
from server.accounts.model import Identity, Secret, Status
from server.storage.engine import Engine
from tests.accounts.conftest import House
from tests.accounts.script import CALLER, OPERATOR

EXPIRED = ShowPage(ResultPage.EXPIRED)


async def refused(coroutine: object) -> AccountError:
    with pytest.raises(AccountError) as caught:
        await coroutine  # type: ignore[misc]
    return caught.value


# --- BeginConnect


async def test_scopes_are_the_defaults_or_those_given_with_the_required_ones(house: House) -> None:
    state = await house.begin()
    assert await scopes_of(house, state) == ("tweet.read", "users.read", "offline.access")
    state = await house.begin(scopes=("tweet.write",))
    assert await scopes_of(house, state) == ("tweet.write", "users.read", "offline.access")


async def scopes_of(house: House, state: str) -> tuple[str, ...]:
    request = await house.store.request_by_state(hashed(Secret(state)))
    assert request is not None
    return request.scopes


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scopes": ("dm.write",)}, "scopes"),
        ({"return_url": "https://app.test/done/"}, "return_url"),
        ({"return_url": "https://app.test.evil.test/done"}, "return_url"),
        ({"return_url": None}, "return_url"),
        ({"redirect_uri": "https://app.test/callback"}, "return_url"),
        ({"return_url": None, "redirect_uri": "https://app.test/callback?"}, "redirect_uri"),
    ],
)
async def test_what_is_not_registered_is_refused_by_its_name(
    house: House, fields: dict[str, object], field: str
) -> None:
    error = await refused(house.begin(**fields))
    assert isinstance(error, InvalidField) and error.field == field


async def test_an_unknown_platform_is_answered_with_the_known_ones(house: House) -> None:
    error = await refused(house.begin(platform="friendster"))
    assert isinstance(error, UnknownPlatform) and error.facts["known"] == "twitter"


async def test_a_caller_begins_only_for_its_profiles_and_platforms(house: House) -> None:
    caller = dataclasses.replace(CALLER, profiles=("acme/",))
    assert isinstance(await refused(house.begin(caller)), CallerNotPermitted)
    caller = dataclasses.replace(CALLER, platforms=frozenset({"linkedin"}))
    assert isinstance(await refused(house.begin(caller)), CallerNotPermitted)


async def test_a_reconnect_names_an_account_of_the_same_profile(house: House) -> None:
    account = await house.connect()
    missing = await refused(house.begin(account_id="0193b0a0-0000-7000-8000-000000000000"))
    assert isinstance(missing, AccountNotFound)
    foreign = dataclasses.replace(CALLER, profiles=("other",))
    hidden = await refused(house.begin(foreign, account_id=account.id, profile_id="other"))
    assert isinstance(hidden, AccountNotFound)
    elsewhere = await refused(house.begin(account_id=account.id, profile_id="p2"))
    assert isinstance(elsewhere, InvalidField) and elsewhere.field == "account_id"


# --- the callback


async def test_the_callback_alone_exchanges_nothing(house: House) -> None:
    await house.come_back(await house.begin())
    assert house.platform.calls == []


async def test_the_browser_goes_on_to_the_stored_return_url_with_a_completion_code(house: House) -> None:
    state = await house.begin(return_url="https://app.test/done?lang=en")
    answer = await house.callback.answer("twitter", AuthorizationResponse(Secret(state), Secret("code-canary")))
    assert isinstance(answer, SendBrowser)
    assert answer.url.startswith("https://app.test/done?lang=en&connect_id=")
    query = parse_qs(urlsplit(answer.url).query)
    assert len(query["completion_code"][0]) == 43
    assert "canary" not in answer.url and state not in answer.url


async def test_a_state_works_once_however_many_browsers_bring_it(house: House) -> None:
    state = await house.begin()
    response = AuthorizationResponse(Secret(state), Secret("code"))
    answers = await asyncio.gather(*(house.callback.answer("twitter", response) for _ in range(50)))
    assert sum(isinstance(answer, SendBrowser) for answer in answers) == 1
    assert answers.count(EXPIRED) == 49


async def test_unknown_and_expired_states_look_alike(house: House) -> None:
    unknown = await house.callback.answer("twitter", AuthorizationResponse(Secret("x" * 43), Secret("code")))
    state = await house.begin()
    house.clock.offset += timedelta(minutes=10)
    expired = await house.callback.answer("twitter", AuthorizationResponse(Secret(state), Secret("code")))
    assert unknown == expired == EXPIRED


async def test_an_expired_state_completes_nothing_and_fails_nothing(house: House) -> None:
    by_itself, denied = await house.begin(OPERATOR, return_url=None), await house.begin()
    house.clock.offset += timedelta(minutes=10)
    for response in (
        AuthorizationResponse(Secret(by_itself), Secret("code")),
        AuthorizationResponse(Secret(denied), error="access_denied"),
    ):
        assert await house.callback.answer("twitter", response) == EXPIRED
    assert house.platform.calls == house.observer.seen == []


async def test_a_state_that_the_callback_took_is_forgotten_and_that_of_a_redirect_uri_is_asked_by_again(
    house: House,
) -> None:
    taken = [await house.begin() for _ in range(2)]
    await house.come_back(taken[0])
    await house.callback.answer("twitter", AuthorizationResponse(Secret(taken[1]), error="access_denied"))
    taken.append(await house.begin(OPERATOR, return_url=None))
    await house.callback.answer("twitter", AuthorizationResponse(Secret(taken[2]), Secret("code")))
    for state in taken:
        assert await house.store.request_by_state(hashed(Secret(state))) is None
    state = await house.begin(return_url=None, redirect_uri="https://app.test/callback")
    response = AuthorizationResponse(Secret(state), Secret("code"))
    for _ in range(2):
        [account] = await house.connector.complete(CALLER, profile_id="p1", completion_code=None, response=response)
        assert account.handle == "ada"


async def test_a_callback_at_another_platforms_path_ends_the_connect(house: House) -> None:
    state = await house.begin()
    answer = await house.callback.answer("linkedin", AuthorizationResponse(Secret(state), Secret("code")))
    assert isinstance(answer, SendBrowser) and parse_qs(urlsplit(answer.url).query)["error"] == ["server_error"]
    again = await house.callback.answer("twitter", AuthorizationResponse(Secret(state), Secret("code")))
    assert again == EXPIRED
    assert house.platform.calls == []


@pytest.mark.parametrize(
    ("promised", "sent"),
    [("https://x.test", sent) for sent in ("", "https://x.test/", "https://X.test", "http://x.test")] + [("", "y")],
)
async def test_an_issuer_that_is_not_the_pinned_one_ends_the_connect(house: House, promised: str, sent: str) -> None:
    house.platform.endpoints = dataclasses.replace(house.platform.endpoints, issuer=promised)
    state = await house.begin()
    answer = await house.callback.answer("twitter", AuthorizationResponse(Secret(state), Secret("code"), iss=sent))
    assert isinstance(answer, SendBrowser) and "error=server_error" in answer.url
    assert house.platform.calls == []


async def test_an_issuer_that_matches_goes_on(house: House) -> None:
    house.platform.endpoints = dataclasses.replace(house.platform.endpoints, issuer="https://x.test")
    state = await house.begin()
    response = AuthorizationResponse(Secret(state), Secret("code"), iss="https://x.test")
    answer = await house.callback.answer("twitter", response)
    assert isinstance(answer, SendBrowser) and "completion_code" in answer.url


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("access_denied", "access_denied"),
        ("invalid_scope", "invalid_scope"),
        ("<svg onload=1>", "server_error"),
        ("", "server_error"),
    ],
)
async def test_an_error_is_passed_on_only_in_the_words_of_the_rfc(house: House, error: str, told: str) -> None:
    answer = await house.callback.answer("twitter", AuthorizationResponse(Secret(await house.begin()), error=error))
    assert isinstance(answer, SendBrowser)
    assert parse_qs(urlsplit(answer.url).query)["error"] == [told]


async def test_an_operators_connect_completes_at_the_callback(house: House) -> None:
    state = await house.begin(OPERATOR, return_url=None)
    response = AuthorizationResponse(Secret(state), Secret("code"))
    answers = await asyncio.gather(*(house.callback.answer("twitter", response) for _ in range(20)))
    assert answers.count(ShowPage(ResultPage.CONNECTED)) == 1
    assert answers.count(EXPIRED) == 19
    assert house.platform.count("exchange") == 1
    page = await house.reader.list(OPERATOR, profile_id="p1", platform=None, statuses=frozenset(), size=10, after="")
    assert [account.handle for account in page.accounts] == ["ada"]


async def test_an_operators_user_who_says_no_sees_so(house: House) -> None:
    state = await house.begin(OPERATOR, return_url=None)
    answer = await house.callback.answer("twitter", AuthorizationResponse(Secret(state), error="access_denied"))
    assert answer == ShowPage(ResultPage.DENIED)


async def test_an_operators_refused_code_shows_the_failure(house: House) -> None:
    house.platform.answer_next("exchange", GrantDead("refused", status=400))
    state = await house.begin(OPERATOR, return_url=None)
    answer = await house.callback.answer("twitter", AuthorizationResponse(Secret(state), Secret("code")))
    assert answer == ShowPage(ResultPage.FAILED)


# --- CompleteConnect


async def test_only_the_beginning_caller_for_the_beginning_profile_completes(house: House) -> None:
    other = dataclasses.replace(CALLER, name="other")
    for caller, profile_id in ((CALLER, "victim"), (other, "p1")):
        code = await house.come_back(await house.begin())
        assert (await refused(house.complete(code, caller, profile_id))).reason is Reason.CONNECT_MISMATCH
        assert (await refused(house.complete(code))).reason is Reason.CONNECT_MISMATCH
    assert house.platform.calls == []


async def test_a_mismatch_does_not_undo_what_was_completed(house: House) -> None:
    code = await house.come_back(await house.begin())
    [account] = await house.complete(code)
    assert (await refused(house.complete(code, profile_id="victim"))).reason is Reason.CONNECT_MISMATCH
    assert await house.complete(code) == (account,)


async def test_a_hundred_completions_exchange_once_and_answer_alike(house: House) -> None:
    code = await house.come_back(await house.begin())
    go_on = asyncio.Event()
    house.platform.answer_next("exchange", go_on)
    calls = [asyncio.create_task(house.complete(code)) for _ in range(100)]
    await house.platform.until_called("exchange")
    go_on.set()
    answers = await asyncio.gather(*calls)
    assert len({accounts[0].id for accounts in answers}) == 1
    assert house.platform.count("exchange") == 1


async def test_the_outcome_is_told_for_ten_minutes(house: House) -> None:
    code = await house.come_back(await house.begin())
    [account] = await house.complete(code)
    house.clock.offset += timedelta(minutes=9, seconds=55)
    assert [again.id for again in await house.complete(code)] == [account.id]
    house.clock.offset += timedelta(seconds=10)
    assert (await refused(house.complete(code))).reason is Reason.CONNECT_NOT_FOUND


async def test_a_completion_code_lives_as_long_as_the_platforms_code(house: House) -> None:
    code = await house.come_back(await house.begin())
    house.clock.offset += timedelta(seconds=30)
    for _ in range(2):
        assert (await refused(house.complete(code))).reason is Reason.CONNECT_EXPIRED
    assert house.platform.calls == []


async def test_an_exchange_that_never_ended_has_failed_after_a_minute(house: House) -> None:
    code = await house.come_back(await house.begin())
    never = asyncio.Event()
    house.platform.answer_next("exchange", never)
    first = asyncio.create_task(house.complete(code))
    await house.platform.until_called("exchange")
    house.clock.offset += timedelta(seconds=61)
    assert (await refused(house.complete(code))).reason is Reason.CONNECT_FAILED
    never.set()
    assert (await refused(first)).reason is Reason.CONNECT_FAILED
    assert await house.revoker.work_off("twitter") == 1


async def test_a_caller_that_gives_up_does_not_stop_the_exchange(house: House) -> None:
    code = await house.come_back(await house.begin())
    go_on = asyncio.Event()
    house.platform.answer_next("exchange", go_on)
    call = asyncio.create_task(house.complete(code))
    await house.platform.until_called("exchange")
    call.cancel()
    go_on.set()
    await house.exchanger.drain()
    [account] = await house.complete(code)
    assert account.status is Status.ACTIVE


async def test_a_caller_that_gives_up_during_the_start_does_not_burn_the_code(house: House) -> None:
    code = await house.come_back(await house.begin())
    call = asyncio.create_task(house.complete(code))
    while not house.exchanger._running:  # noqa: ASYNC110 (the next turn of the loop, nothing to wait for)
        await asyncio.sleep(0)
    call.cancel()
    await house.exchanger.drain()
    assert [account.handle for account in await house.complete(code)] == ["ada"]
    assert house.platform.count("exchange") == 1


async def test_a_caller_with_its_own_redirect_uri_brings_the_response_itself(house: House) -> None:
    state = await house.begin(return_url=None, redirect_uri="https://app.test/callback")
    response = AuthorizationResponse(Secret(state), Secret("code"))
    at_the_shim = await house.callback.answer("twitter", response)
    assert at_the_shim == EXPIRED
    [account] = await house.connector.complete(CALLER, profile_id="p1", completion_code=None, response=response)
    assert account.handle == "ada"


async def test_a_response_cannot_bypass_the_callback(house: House) -> None:
    state = await house.begin()
    response = AuthorizationResponse(Secret(state), Secret("code"))
    error = await refused(house.connector.complete(CALLER, profile_id="p1", completion_code=None, response=response))
    assert error.reason is Reason.CONNECT_MISMATCH
    assert house.platform.calls == []


async def test_a_user_who_says_no_is_told_apart_from_an_error(house: House) -> None:
    for error, reason in (("access_denied", Reason.USER_DENIED), ("server_error", Reason.CONNECT_FAILED)):
        state = await house.begin(return_url=None, redirect_uri="https://app.test/callback")
        response = AuthorizationResponse(Secret(state), error=error)
        for _ in range(2):
            told = await refused(
                house.connector.complete(CALLER, profile_id="p1", completion_code=None, response=response)
            )
            assert told.reason is reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (GrantDead("code was invalid", status=400), Reason.CODE_REFUSED),
        (NotSent("no route"), Reason.PLATFORM_UNAVAILABLE),
        (PlatformRefused("503", status=503), Reason.PLATFORM_UNAVAILABLE),
        (OutcomeUnknown("html"), Reason.PLATFORM_UNAVAILABLE),
        (OurFault("invalid_client", status=401, error="invalid_client"), Reason.CONNECT_FAILED),
    ],
)
async def test_a_failed_exchange_has_one_reason_for_all_who_ask(
    house: House, answer: Exception, reason: Reason
) -> None:
    code = await house.come_back(await house.begin())
    house.platform.answer_next("exchange", answer)
    for _ in range(2):
        assert (await refused(house.complete(code))).reason is reason
    assert house.platform.count("exchange") == 1


async def test_a_grant_whose_user_is_not_told_is_revoked(house: House) -> None:
    code = await house.come_back(await house.begin())
    house.platform.answer_next("identify", PlatformRefused("503", status=503))
    assert (await refused(house.complete(code))).reason is Reason.IDENTITY_UNAVAILABLE
    assert await house.revoker.work_off("twitter") == 1
    assert [detail for kind, detail in house.platform.calls if kind == "revoke"] == ["rt-1", "at-1"]


async def test_a_grant_that_cannot_be_kept_is_given_back_whatever_the_fault(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> bool:
        raise RuntimeError("file is not a database")

    monkeypatch.setattr(house.store, "keep_exchanged", broken)
    code = await house.come_back(await house.begin())
    with pytest.raises(RuntimeError):
        await house.complete(code)
    assert [detail for kind, detail in house.platform.calls if kind == "revoke"] == ["rt-1", "at-1"]


async def test_tokens_that_come_after_their_connect_is_forgotten_are_revoked(house: House, engine: Engine) -> None:
    async def forgotten(_: str) -> None:
        engine.database.execute_sql("DELETE FROM authorization_requests")

    house.platform.before["exchange"] = forgotten
    assert (await refused(house.complete(await house.come_back(await house.begin())))).reason is Reason.CONNECT_FAILED
    assert await house.revoker.work_off("twitter") == 1
    assert [detail for kind, detail in house.platform.calls if kind == "revoke"] == ["rt-1", "at-1"]


async def test_a_reconnect_as_another_user_changes_nothing_and_revokes_the_new_grant(house: House) -> None:
    account = await house.connect()
    state = await house.begin(account_id=account.id)
    house.platform.answer_next("identify", (Identity("2", "grace"),))
    error = await refused(house.complete(await house.come_back(state)))
    assert error.reason is Reason.WRONG_PLATFORM_USER
    assert await house.account(account.id) == account
    await house.revoker.work_off("twitter")
    assert [detail for kind, detail in house.platform.calls if kind == "revoke"] == ["rt-2", "at-2"]


async def test_a_reconnect_as_the_same_user_renews_the_account(house: House) -> None:
    account = await house.connect()
    [again] = await house.complete(await house.come_back(await house.begin(account_id=account.id)))
    assert again.id == account.id


async def test_fewer_scopes_than_asked_leave_the_account_active_and_are_listed(house: House) -> None:
    fewer = dataclasses.replace(await house.platform.mint(()), scopes=("users.read",))
    house.platform.answer_next("exchange", fewer)
    account = await house.connect()
    assert account.status is Status.ACTIVE
    assert account.missing_scopes == ("offline.access", "tweet.read")


async def test_without_a_refresh_token_the_account_is_active_until_its_token_ends(house: House) -> None:
    lacking = dataclasses.replace(await house.platform.mint(("users.read",)), refresh_token=None)
    house.platform.answer_next("exchange", lacking)
    account = await house.connect()
    assert account.status is Status.ACTIVE
    house.clock.offset += timedelta(hours=2, seconds=1)
    await house.refresher.run_once()
    assert (await house.account(account.id)).status is Status.EXPIRED
    assert house.platform.count("refresh") == 0
