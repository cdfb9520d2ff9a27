"""What an answer cannot do: lead elsewhere, set cookies, bring back the token, cost too much (rows F2, F6, F7)."""

import asyncio
import base64
import contextlib
import gzip
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from synposter.accounts.v1.platform_service_pb2 import QueryParameter

from server.accounts.calls import LARGEST_BODY
from server.platforms.connection import OneAnswer
from tests.platforms.peer import Answer, drips_body, drips_headers, hangs, http, peer, says
from tests.security.acting import acting

STATUSES = ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent")
BYTES = b"\x00\xff{}" * 1000


class Told:
    """An answer that the test changes."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self.data)


@pytest.mark.parametrize("status", STATUSES)
async def test_a_redirect_to_another_host_is_neither_followed_nor_told(tmp_path: Path, status: str) -> None:
    told = Told()
    async with peer(says(http())) as evil, acting(tmp_path, told) as service:
        for location in (
            f"{evil.url}/x",
            evil.url.replace("http:", ""),
            f"{service.peer.url}@{evil.url[7:]}/",
            "/\\evil",
        ):
            told.data = http(b"", status, f"Location: {location}")
            answer = await service.post()
            assert answer.status_code == int(status[:3])
            assert "location" not in {header.name for header in answer.headers}, location
        told.data = http(b"", status, f"Location: {service.peer.url}/2/tweets/1")
        assert {header.name: header.value for header in (await service.post()).headers}["location"].endswith(
            "/2/tweets/1"
        )
        assert len(service.peer.received) == 5
        assert evil.connections == 0


async def test_only_headers_of_the_allow_list_are_told_and_no_cookie_comes_back(tmp_path: Path) -> None:
    headers = (
        "Set-Cookie: a=b", "Server: x", "X-Powered-By: y", "Access-Control-Allow-Origin: *", "WWW-Authenticate: Bearer",
        "Content-Security-Policy: x", "ETag: 1", "Retry-After: 3", "X-Rate-Limit-Remaining: 4",
    )  # fmt: skip
    async with acting(tmp_path, says(http(BYTES, "404 Not Found", *headers))) as service:
        for _ in range(2):
            answer = await service.call()
        assert (answer.status_code, answer.body) == (404, BYTES)
        assert {header.name for header in answer.headers} == {
            "content-type", "etag", "retry-after", "x-rate-limit-remaining",
        }  # fmt: skip
        assert all(b"cookie" not in request.lower() for request in service.peer.received)


def in_json(token: str) -> bytes:
    return b'{"you_sent":"Bearer ' + token.encode() + b'"}'


SPELLINGS: dict[str, Callable[[str], bytes]] = {
    "as it is": in_json,
    "percent-encoded": lambda token: quote(token + "/", safe="").encode(),
    "base64": lambda token: base64.b64encode(f"Authorization: Bearer {token}".encode()),
    "base64 at another place": lambda token: base64.b64encode(f"x{token}yz".encode()),
    "base64 at a third place": lambda token: base64.urlsafe_b64encode(f"xx{token}y".encode()),
    "packed": lambda token: gzip.compress(in_json(token)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
async def test_an_answer_that_repeats_the_token_is_withheld(tmp_path: Path, spelling: str, status: str) -> None:
    told = Told()
    async with acting(tmp_path, told) as service:
        token = await service.token()
        packed = ["Content-Encoding: gzip"] if spelling == "packed" else []
        told.data = http(SPELLINGS[spelling](token), status, *packed)
        refusal = await service.refusal(query=[QueryParameter(name="a", value="b")])
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "RESPONSE_WITHHELD")
        assert (refusal.facts["why"], refusal.facts["status_code"]) == ("token", status[:3])
        assert token not in refusal.raw + refusal.text
        [ended, sent] = await service.usage()
        assert (ended.result, sent.result, ended.use_id) == ("withheld", "sent", refusal.facts["use_id"])


async def test_a_header_that_repeats_the_token_is_withheld_too(tmp_path: Path) -> None:
    told = Told()
    async with acting(tmp_path, told) as service:
        told.data = http(b"{}", "200 OK", f"ETag: {await service.token()}")
        assert (await service.refusal()).facts["why"] == "token"


async def test_the_largest_bodies_go_through_and_larger_ones_do_not(tmp_path: Path) -> None:
    told = Told(http(b"x" * LARGEST_BODY))
    async with acting(tmp_path, told) as service:
        answer = await service.post(b"y" * LARGEST_BODY, content_type="application/octet-stream")
        assert answer.body == b"x" * LARGEST_BODY
        assert service.peer.received[0].endswith(b"\r\n\r\n" + b"y" * LARGEST_BODY)
        refusal = await service.refusal(
            method="POST", path="/2/tweets", content_type="a/b", body=b"y" * (LARGEST_BODY + 1)
        )
        assert (refusal.reason, refusal.facts) == ("INVALID_FIELD", {"field": "body"})
        told.data = http(b"x" * (LARGEST_BODY + 1))
        assert (await service.refusal()).facts["why"] == "too_large"
        assert len(service.peer.received) == 2


def bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    block = bytes(1024 * 1024)
    return b"".join([*(packer.compress(block) for _ in range(megabytes)), packer.flush()])


async def test_an_answer_that_unpacks_to_a_gigabyte_is_cut_off_at_the_cap(tmp_path: Path) -> None:
    packed = bomb(1024)
    assert len(packed) < 1_100_000
    async with acting(tmp_path, says(http(packed, "200 OK", "Content-Encoding: gzip"))) as service:
        tracemalloc.start()
        refusal = await service.refusal()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (refusal.reason, refusal.facts["why"]) == ("RESPONSE_WITHHELD", "too_large")
        assert peak < 50 * 1024 * 1024


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("br", b"{}"), ("gzip, gzip", b"{}"), ("gzip", b"no gzip"), ("gzip", gzip.compress(b"{}") + b"more" * 100)],
    ids=["another", "twice", "none", "with more behind it"],
)
async def test_an_answer_that_cannot_be_unpacked_is_not_passed_on(tmp_path: Path, encoding: str, body: bytes) -> None:
    async with acting(tmp_path, says(http(body, "200 OK", f"Content-Encoding: {encoding}"))) as service:
        assert (await service.refusal()).facts["why"] == "encoding"


@pytest.mark.parametrize("answer", [hangs, drips_headers, drips_body], ids=lambda each: each.__name__)
async def test_a_platform_that_hangs_or_drips_is_left_at_the_callers_deadline(tmp_path: Path, answer: Answer) -> None:
    async with acting(tmp_path, answer) as service:
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.call(timeout=1.0)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "may be repeated" in str(caught.value.details()), "we told it, before gRPC ended the call"
        assert time.monotonic() - began < 1.5
        refusal = await service.refusal(method="POST", path="/2/tweets", content_type="a/b", body=b"x", timeout=1.0)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "OUTCOME_UNKNOWN")


@pytest.mark.parametrize(
    "unasked",
    [http(b"ada's"), http(b"", "408 Request Timeout"), b"HTTP/1.1 103 Hints\r\n\r\n", b"HTTP/1.1 200 O"],
    ids=["an answer", "408", "an interim answer", "the beginning of an answer"],
)
async def test_what_comes_unasked_is_never_the_answer_to_another_accounts_call(tmp_path: Path, unasked: bytes) -> None:
    come = asyncio.Event()

    async def answers_again(writer: asyncio.StreamWriter) -> None:
        writer.write(http(b"the first"))
        await come.wait()
        writer.write(unasked)
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    async with acting(tmp_path, answers_again) as service:
        other = await service.whole.connect("grace")
        assert (await service.call()).body == b"the first"
        [kept] = service.whole.app.apis["twitter"].sender._opened().connector._conns.values()
        [(connection, _)] = kept
        service.peer.answer = says(http(b"the second", "201 Created"))
        come.set()
        async with asyncio.timeout(10):
            while connection.is_connected():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        answer = await service.post(account_id=other.id)
        assert (answer.status_code, answer.body) == (201, b"the second")


async def test_a_few_interim_answers_come_before_the_answer(tmp_path: Path) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3
    async with acting(tmp_path, says(interim + http(b"{}", "201 Created"))) as service:
        for _ in range(10):
            assert (await service.post()).status_code == 201
        assert service.peer.connections == 1


@pytest.mark.parametrize("begin", [b"", http(b"x" * 50_000)], ids=["at once", "behind an answer"])
@pytest.mark.parametrize("answer", ["103 Early Hints", "204 No Content"])
async def test_answers_without_end_are_cut_off_before_they_hold_up_anybody(
    tmp_path: Path, answer: str, begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = 0

    def feed_data(connection: OneAnswer, *head: Any) -> None:
        nonlocal parsed
        parsed += 1
        feed(connection, *head)

    cut_off = asyncio.Event()

    async def flood(writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(begin)
            while True:
                writer.write(f"HTTP/1.1 {answer}\r\n\r\n".encode() * 10_000)
                await writer.drain()
        except ConnectionError:
            cut_off.set()
            raise

    feed = OneAnswer.feed_data
    monkeypatch.setattr(OneAnswer, "feed_data", feed_data)
    async with acting(tmp_path, flood) as service:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await service.call()
        async with asyncio.timeout(10):
            await cut_off.wait()
        assert service.peer.connections == 1
    assert parsed < 500, "a quarter of a megabyte of them, ten thousand, is parsed in one piece"


EMPTY_BLOCKS = b"\0\0\0\xff\xff" * 20_000


@pytest.mark.parametrize(
    ("headers", "begin", "more"),
    [
        ("Transfer-Encoding: chunked", b"1;", b"x" * 100_000),
        ("Content-Length: 999999999\r\nContent-Encoding: gzip", gzip.compress(b"")[:10], EMPTY_BLOCKS),
    ],
    ids=["the frame of a chunk", "packed nothing"],
)
async def test_what_frames_or_packs_an_answer_without_end_is_cut_off(
    tmp_path: Path, headers: str, begin: bytes, more: bytes
) -> None:
    sent = 0
    cut_off = asyncio.Event()

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        try:
            writer.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + begin)
            while True:
                writer.write(more)
                sent += len(more)
                await writer.drain()
        except ConnectionError:
            cut_off.set()
            raise

    async with acting(tmp_path, flood) as service:
        refusal = await service.refusal(timeout=60)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "PLATFORM_UNAVAILABLE")
        async with asyncio.timeout(10):
            await cut_off.wait()
    assert sent < 4 * LARGEST_BODY, "more than that is in the buffers of no socket"
