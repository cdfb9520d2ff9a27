"""What changes something is sent once; where its outcome is not known, the caller and the record say so (row F8)."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from server.accounts.errors import StoreUnavailable
from tests.platforms.peer import Answer, http, resets, says
from tests.security.acting import OK, REFUSED, Acting, Script, acting, request, until

UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
CARRIED_OUT = 'accounts_calls_total{method="POST",outcome="2xx",platform="twitter"} 1.0'


@contextmanager
def nobody_listens(service: Acting) -> Iterator[None]:
    """The platform's API is where no connection comes up."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        base = service.whole.app.apis["twitter"].base
        service.whole.app.apis["twitter"].base = type(base)(base.scheme, base.host, nobody.getsockname()[1])
        yield


async def cut_off(writer: asyncio.StreamWriter) -> None:
    """The request was carried out, and its answer breaks off."""
    writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n{")
    await writer.drain()
    writer.transport.abort()


@pytest.mark.parametrize("kept", [False, True], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("ending", [resets, cut_off], ids=lambda each: each.__name__)
@pytest.mark.parametrize("method", UNSAFE)
async def test_a_change_whose_answer_is_lost_is_made_once_and_its_outcome_said_to_be_unknown(
    tmp_path: Path, method: str, ending: Answer, kept: bool
) -> None:
    async with acting(tmp_path, Script(OK, ending) if kept else Script(ending)) as service:
        if kept:
            await service.call()
        refusal = await service.refusal(**request(method))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "OUTCOME_UNKNOWN")
        assert [each.split()[0].decode() for each in service.peer.received] == (["GET"] if kept else []) + [method]
        assert service.peer.connections == 1, "the kept one was used"
        ended, sent = (await service.usage())[:2]
        assert (ended.result, sent.result) == ("unknown", "sent")
        assert ended.use_id == sent.use_id == refusal.facts["use_id"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_read_whose_answer_is_lost_is_not_repeated_by_itself_and_may_be_by_the_caller(
    tmp_path: Path, method: str
) -> None:
    async with acting(tmp_path, Script(OK, resets)) as service:
        await service.call()
        refusal = await service.refusal(**request(method))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "PLATFORM_UNAVAILABLE")
        assert len(service.peer.received) == 2


@pytest.mark.parametrize("status", ["101 Switching Protocols", "000 Nothing", "099 Odd", "600 Odd", "999 Denied"])
async def test_a_status_that_is_no_answer_leaves_the_outcome_unknown(tmp_path: Path, status: str) -> None:
    async with acting(tmp_path, says(http(b"{}", status))) as service:
        assert (await service.refusal(**request("POST"))).reason == "OUTCOME_UNKNOWN"
        refusal = await service.refusal()
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "PLATFORM_UNAVAILABLE")
        assert len(service.peer.received) == 2
        assert [each.result for each in await service.usage()] == ["unknown", "sent"] * 2


async def test_what_could_not_be_sent_is_said_not_to_have_been(tmp_path: Path) -> None:
    async with acting(tmp_path) as service:
        with nobody_listens(service):
            refusal = await service.refusal(**request("POST"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "PLATFORM_UNAVAILABLE")
        assert "nothing was sent" in refusal.text
        assert service.peer.received == []
        assert [each.result for each in await service.usage()] == ["not_sent", "sent"]


async def test_a_fault_of_ours_after_a_change_was_sent_is_an_unknown_outcome_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("a fault of ours")

    async with acting(tmp_path) as service:
        monkeypatch.setattr("server.platforms.api.read_answer", fails)
        assert (await service.refusal(**request("POST"))).reason == "OUTCOME_UNKNOWN"
        assert (await service.refusal()).reason == "PLATFORM_UNAVAILABLE"
        assert [each.result for each in await service.usage()] == ["unknown", "sent"] * 2


async def test_what_cannot_be_recorded_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with acting(tmp_path) as service:

        async def full(_work: Any) -> Any:
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(service.whole.app.engine, "write", full)
            refusal = await service.refusal(**request("POST"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert service.peer.connections == 0


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[tuple[Acting, asyncio.Event]]:
    """A platform that answers when the test says so."""
    go_on = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(http(b"{}", "201 Created"))

    async with acting(tmp_path, answer) as service:
        yield service, go_on


async def cancelled(call: Awaitable[Any], when: Callable[[], bool]) -> None:
    task = asyncio.ensure_future(call)
    await until(when)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_change_whose_caller_is_gone_goes_on_and_the_record_tells_how_it_ended(
    waiting: tuple[Acting, asyncio.Event],
) -> None:
    service, go_on = waiting
    await cancelled(service.post(), lambda: bool(service.peer.received))
    go_on.set()
    await service.whole.app.actor.drain()
    assert [each.result for each in await service.usage()] == ["sent"], "it was carried out"
    assert CARRIED_OUT in service.metrics()


async def test_a_read_whose_caller_is_gone_is_cut_off_and_the_record_says_so(
    waiting: tuple[Acting, asyncio.Event],
) -> None:
    service, _ = waiting
    await cancelled(service.call(), lambda: bool(service.peer.received))
    await until(lambda: 'accounts_calls_in_flight{platform="twitter"} 0.0' in service.metrics())
    await service.whole.app.actor.drain()
    assert [each.result for each in await service.usage()] == ["cancelled", "sent"]


async def test_a_change_that_was_refused_with_401_and_whose_caller_is_gone_is_not_recorded_as_not_sent(
    tmp_path: Path,
) -> None:
    async with acting(tmp_path, says(REFUSED)) as service:
        service.whole.clock.offset += timedelta(minutes=2)
        await service.whole.sandbox.fault("token", "hold_before", times=-1)
        task = asyncio.ensure_future(service.post())
        await service.whole.sandbox.until_held()
        task.cancel()
        await until(lambda: 'accounts_calls_in_flight{platform="twitter"} 0.0' in service.metrics())
        await service.whole.sandbox.clear_faults()
        await service.whole.app.refresher.settled()
        await service.whole.app.actor.drain()
        assert [(each.result, each.status_code) for each in await service.usage()] == [("answered", 401), ("sent", 0)]
        assert len(service.peer.received) == 1


async def hangs(*_: Any) -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize("hanging", ["account_at_hand", "record_use"])
async def test_a_call_whose_account_or_record_takes_too_long_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging: str
) -> None:
    async with acting(tmp_path) as service:
        monkeypatch.setattr(service.whole.app.store, hanging, hangs)
        with pytest.raises(grpc.aio.AioRpcError, match="nothing was sent") as caught:
            await service.post(limit=1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert service.peer.connections == 0


async def test_a_second_401_is_told_in_time_by_a_database_that_hangs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with acting(tmp_path, says(REFUSED)) as service:
        fresh, looks = service.whole.app.fresh, 0
        newer = fresh.newer

        async def third_hangs(*arguments: Any) -> Any:
            nonlocal looks
            looks += 1
            return await (hangs() if looks == 3 else newer(*arguments))

        service.whole.clock.offset += timedelta(minutes=2)
        monkeypatch.setattr(fresh, "newer", third_hangs)
        answer = await service.post(limit=3)
        assert (answer.status_code, looks, len(service.peer.received)) == (401, 3, 2)


async def test_a_change_whose_caller_is_gone_before_it_was_sent_is_not_sent(tmp_path: Path) -> None:
    async with acting(tmp_path) as service:
        service.whole.clock.offset += timedelta(hours=3)
        await service.whole.sandbox.fault("token", "hold_before", times=-1)
        task = asyncio.ensure_future(service.post())
        await service.whole.sandbox.until_held()
        task.cancel()
        await service.whole.sandbox.clear_faults()
        await service.whole.app.refresher.settled()
        await service.whole.app.actor.drain()
        assert service.peer.connections == 0
        assert await service.usage() == []


async def test_a_stop_waits_for_a_change_whose_caller_is_gone(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(http(b"{}", "201 Created"))

    async with acting(tmp_path, answer) as service:
        await cancelled(service.post(), lambda: bool(service.peer.received))
        asyncio.get_running_loop().call_later(0.5, go_on.set)
    assert CARRIED_OUT in service.metrics()


async def test_each_call_that_was_let_through_is_counted_by_how_it_ended(tmp_path: Path) -> None:
    script = Script()
    async with acting(tmp_path, script) as service:
        repeats = says(http((await service.token()).encode()))
        script.answers = [OK, says(http(b"{}", "404 Not Found")), says(http(b"{}", "503 Busy")), repeats, resets, OK]
        for _ in range(3):
            await service.call()
        assert (await service.refusal()).reason == "RESPONSE_WITHHELD"
        assert (await service.refusal(**request("POST"))).reason == "OUTCOME_UNKNOWN"
        with nobody_listens(service):
            assert "nothing was sent" in (await service.refusal()).text
        for method, outcome in (
            *(("GET", each) for each in ("2xx", "4xx", "5xx", "withheld", "not_sent")), ("POST", "unknown"),
        ):  # fmt: skip
            labels = f'method="{method}",outcome="{outcome}",platform="twitter"'
            assert f"accounts_calls_total{{{labels}}} 1.0" in service.metrics(), outcome
        assert 'accounts_call_seconds_count{platform="twitter"} 6.0' in service.metrics()
