"""What a 401 of the platform leads to: one refresh and one more try, with what is allowed by then (row F8)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.platforms.peer import http, says
from tests.rpc.conftest import refusal_of
from tests.security.acting import OK, REFUSED, Acting, Script, acting, request, until


async def test_401_leads_to_one_refresh_and_one_more_try_with_the_same_body(tmp_path: Path) -> None:
    async with acting(tmp_path, Script(says(REFUSED), OK)) as service:
        service.whole.clock.offset += timedelta(minutes=2)  # past min_interval
        before = await service.token()
        answer = await service.post()
        assert answer.status_code == 200
        first, second = service.peer.received
        assert before.encode() in first
        assert (await service.token()).encode() in second
        assert first.replace(before.encode(), (await service.token()).encode()) == second
        [grant] = await service.whole.sandbox.ledger()
        assert grant["refreshes"] == 1
        assert [each.result for each in await service.usage()] == ["sent"]


async def test_401_whose_answer_is_withheld_leads_to_one_refresh_and_one_more_try_as_well(tmp_path: Path) -> None:
    script = Script()
    async with acting(tmp_path, script) as service:
        service.whole.clock.offset += timedelta(minutes=2)
        repeats = http(f"{await service.token()} is no good".encode(), "401 Unauthorized")
        script.answers = [says(repeats), OK]
        assert (await service.post()).status_code == 200
        assert len(service.peer.received) == 2
        script.answers = [says(http(b"?", "401 Unauthorized", "Content-Encoding: br"))]
        service.whole.clock.offset += timedelta(minutes=2)
        refusal = await service.refusal(**request("POST"))
        assert (refusal.reason, refusal.facts["status_code"]) == ("RESPONSE_WITHHELD", "401")
        assert len(service.peer.received) == 4
        assert [each.result for each in await service.usage()] == ["withheld", "sent", "sent"]


async def test_a_second_401_is_the_answer_and_costs_no_further_refresh_for_a_while(tmp_path: Path) -> None:
    async with acting(tmp_path, says(REFUSED)) as service:
        for sent in (2, 3, 4):
            service.whole.clock.offset += timedelta(minutes=2)
            assert (await service.post()).status_code == 401
            assert len(service.peer.received) == sent
        [grant] = await service.whole.sandbox.ledger()
        assert grant["refreshes"] == 1
        service.whole.clock.offset += timedelta(minutes=16)
        await service.post()
        assert len(service.peer.received) == 6


async def test_401_right_after_a_refresh_is_the_answer_and_nothing_is_sent_again(tmp_path: Path) -> None:
    async with acting(tmp_path, says(REFUSED)) as service:  # its token is younger than min_interval
        assert (await service.post()).status_code == 401
        assert len(service.peer.received) == 1
        assert [grant["refreshes"] for grant in await service.whole.sandbox.ledger()] == [0]


@asynccontextmanager
async def with_a_late_401(folder: Path) -> AsyncIterator[tuple[Acting, asyncio.Task[Any], asyncio.Event]]:
    """A post whose token is refused when the test says so; what comes after it is answered with 200."""
    late = asyncio.Event()

    async def refuse_late(writer: asyncio.StreamWriter) -> None:
        await late.wait()
        writer.write(REFUSED)

    async with acting(folder, Script(refuse_late, OK)) as service:
        call = asyncio.create_task(service.post())
        await until(lambda: bool(service.peer.received))
        service.whole.clock.offset += timedelta(minutes=2)
        yield service, call, late


async def refusal_of_call(call: asyncio.Task[Any]) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal_of(caught.value)


async def test_a_late_401_takes_the_token_that_another_refresh_brought_meanwhile(tmp_path: Path) -> None:
    async with with_a_late_401(tmp_path) as (service, call, late):
        await service.whole.accounts.refresh(service.account.id)
        service.whole.clock.offset += timedelta(minutes=2)
        late.set()
        assert (await call).status_code == 200
        assert (await service.token()).encode() in service.peer.received[1]
        assert [grant["refreshes"] for grant in await service.whole.sandbox.ledger()] == [1]


async def test_a_late_401_of_an_account_that_was_revoked_meanwhile_says_so(tmp_path: Path) -> None:
    async with with_a_late_401(tmp_path) as (service, call, late):
        await service.whole.accounts.revoke(service.account.id)
        late.set()
        refusal = await refusal_of_call(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ACCOUNT_REVOKED")
        assert len(service.peer.received) == 1
        assert [(each.result, each.status_code) for each in await service.usage()] == [("answered", 401), ("sent", 0)]


async def test_a_late_401_of_an_account_that_expired_meanwhile_says_what_mends_it(tmp_path: Path) -> None:
    async with with_a_late_401(tmp_path) as (service, call, late):
        await service.whole.sandbox.revoke_user("ada")
        await service.whole.refresh_due()
        late.set()
        assert (await refusal_of_call(call)).reason == "ACCOUNT_EXPIRED"
        assert len(service.peer.received) == 1


async def test_a_late_401_of_an_account_that_was_connected_again_takes_the_new_token(tmp_path: Path) -> None:
    async with with_a_late_401(tmp_path) as (service, call, late):
        await service.whole.connect(account_id=service.account.id)
        late.set()
        assert (await call).status_code == 200
        assert (await service.token()).encode() in service.peer.received[1]
        assert [grant["refreshes"] for grant in await service.whole.sandbox.ledger()] == [0, 0]


async def test_a_late_401_is_not_followed_by_a_try_that_the_user_does_not_allow_any_more(tmp_path: Path) -> None:
    async with with_a_late_401(tmp_path) as (service, call, late):
        await service.whole.connect(account_id=service.account.id, scopes=["tweet.read"])
        late.set()
        refusal = await refusal_of_call(call)
        assert (refusal.reason, refusal.facts["scopes"]) == ("MISSING_SCOPE", "tweet.write")
        assert len(service.peer.received) == 1


async def test_a_late_401_is_not_followed_by_a_try_at_a_platform_that_was_paused_meanwhile(tmp_path: Path) -> None:
    async with with_a_late_401(tmp_path) as (service, call, late):
        await service.whole.accounts.refresh(service.account.id)
        service.whole.app.actor._lanes["twitter"].gate.pause("an incident")
        late.set()
        assert (await refusal_of_call(call)).reason == "PLATFORM_PAUSED"
        assert len(service.peer.received) == 1


async def test_that_a_refresh_was_in_vain_holds_for_its_grant_and_not_for_the_next(tmp_path: Path) -> None:
    async with acting(tmp_path, says(REFUSED)) as service:
        service.whole.clock.offset += timedelta(minutes=2)
        assert (await service.post()).status_code == 401
        await service.whole.connect(account_id=service.account.id)
        service.whole.clock.offset += timedelta(minutes=2)
        service.peer.answer = Script(says(REFUSED), OK)
        assert (await service.post()).status_code == 200


async def test_a_second_401_of_a_token_that_was_replaced_meanwhile_says_nothing_of_the_newest(tmp_path: Path) -> None:
    async with with_a_late_401(tmp_path) as (service, call, late):
        await service.whole.accounts.refresh(service.account.id)

        async def refuse_what_is_replaced(writer: asyncio.StreamWriter) -> None:
            service.whole.clock.offset += timedelta(minutes=2)
            await service.whole.accounts.refresh(service.account.id)
            writer.write(REFUSED)

        service.peer.answer = Script(refuse_what_is_replaced, says(REFUSED), OK)
        late.set()
        assert (await call).status_code == 401
        service.whole.clock.offset += timedelta(minutes=2)
        assert (await service.post()).status_code == 200, "that a refresh would be in vain was believed"


async def test_401_of_many_at_once_costs_one_refresh(tmp_path: Path) -> None:
    async with acting(tmp_path) as service:
        service.whole.clock.offset += timedelta(minutes=2)
        old = (await service.token()).encode()

        async def answer(writer: asyncio.StreamWriter) -> None:
            writer.write(REFUSED if old in service.peer.received[-1] else http())

        service.peer.answer = answer
        answers = await asyncio.gather(*(service.post() for _ in range(20)))
        assert {each.status_code for each in answers} == {200}
        [grant] = await service.whole.sandbox.ledger()
        assert grant["refreshes"] == 1


async def test_401_of_a_grant_that_is_dead_says_that_the_user_has_to_act(tmp_path: Path) -> None:
    async with acting(tmp_path, says(REFUSED)) as service:
        service.whole.clock.offset += timedelta(minutes=2)
        await service.whole.sandbox.revoke_user("ada")
        refusal = await service.refusal(**request("POST"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ACCOUNT_EXPIRED")
        assert len(service.peer.received) == 1
