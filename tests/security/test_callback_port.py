"""What else the callback's port tells and serves (rows B5, B6): time tells nothing, and nothing else is there."""

import asyncio
import itertools
import math
import random
import re
import secrets
import statistics
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from server.accounts.flow import AuthorizationResponse, ResultPage
from server.accounts.limits import Pace
from server.accounts.model import Secret
from server.web.pages import PAGES
from tests.accounts.script import CALLER
from tests.e2e.conftest import Whole
from tests.security.conftest import Get
from tests.web.conftest import CALLBACK, strict

EXPIRED = PAGES[ResultPage.EXPIRED].body
DATE = re.compile(rb"Date: [^\r]*\r\n")

# --- B5: what time tells


def same_distribution(one: list[float], other: list[float]) -> float:
    """The p-value of the two-sample Kolmogorov-Smirnov test."""
    merged = sorted([(value, 1 / len(one)) for value in one] + [(value, -1 / len(other)) for value in other])
    distance = max(abs(gap) for gap in itertools.accumulate(step for _, step in merged))
    scaled = distance * math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    terms = ((-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
    return min(1.0, 2 * sum(terms)) if scaled > 0.2 else 1.0


async def timed(port: int, request: bytes) -> tuple[float, bytes]:
    """Seconds until the whole answer is there; bytes, since clients remember URLs they have seen, which takes less."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start = time.perf_counter()
    writer.write(request)
    answer = await reader.read()
    took = time.perf_counter() - start
    writer.close()
    return took, answer


def test_b5_the_test_of_distributions_tells_them_apart() -> None:
    chance = random.Random(1)
    one, alike, other = ([chance.gauss(mean, 1) for _ in range(1_000)] for mean in (0, 0, 0.3))
    assert same_distribution(one, alike) > 0.01 > same_distribution(one, other)


async def states(service: Whole, number: int) -> tuple[str, str, str]:
    """A state that nobody began, one that was used, and one whose last character is wrong."""
    made = []
    for kind in ("used", "live"):
        begun = await service.app.connector.begin(
            CALLER, profile_id=f"{kind}-{number}", platform="twitter", scopes=(), return_url="https://app.test/done",
            redirect_uri=None, account_id=None,
        )  # fmt: skip
        made.append(parse_qs(urlsplit(begun.authorization_url).query)["state"][0])
    used, live = made
    await service.app.callback.answer("twitter", AuthorizationResponse(Secret(used), error="access_denied"))
    return secrets.token_urlsafe(32), used, live[:-1] + ("A" if live[-1] != "A" else "B")


@pytest.mark.alone
@pytest.mark.parametrize("each", [300, pytest.param(10_000, marks=pytest.mark.long)])
async def test_b5_unknown_used_and_nearly_right_states_look_alike_and_take_as_long(service: Whole, each: int) -> None:
    service.app.web._callbacks = Pace(1e9, time.monotonic)
    service.app.callback._callers[CALLER.name] = CALLER
    made = [state for number in range(each) for state in enumerate(await states(service, number))]
    sent = [(kind, f"GET {CALLBACK}?state={state}&code=c HTTP/1.1\r\nHost: a\r\n\r\n".encode()) for kind, state in made]
    least = 0.0
    for _ in range(3):  # alike ones differ by chance, one time in a hundred; those that differ always do
        took: tuple[list[float], ...] = ([], [], [])
        answers = set()
        for kind, request in random.sample(sent, len(sent)):
            seconds, answer = await timed(service.app.http_port, request)
            took[kind].append(seconds)
            answers.add(DATE.sub(b"", answer))
        assert len(answers) == 1 and answers.pop().endswith(EXPIRED)
        least = min(same_distribution(one, other) for one, other in itertools.combinations(took, 2))
        if least > 0.01:
            return
    pytest.fail(f"time tells them apart: p = {least:.2g}, medians {[statistics.median(each) for each in took]}")


# --- B6: what else the port serves

WORDS = (
    "admin", "metrics", "docs", "api", "grpc", "debug", "status", "config", "login", "oauth", "callback", "health",
    "server-status", "actuator", "console", "swagger", "graphql", "openapi", ".env", ".git", "backup", "accounts",
    "synposter.accounts.v1.AccountService", "wp-login", "static", "favicon", "robots", "index", "keys", "tokens",
)  # fmt: skip
ENDINGS = ("", "/", ".php", ".json", ".txt", ".bak", "/config", "/v1", "%2e%2e/", ";a=b", "/.", "//", "~", "?x=1")


@pytest.mark.parametrize("count", [200, pytest.param(5_000, marks=pytest.mark.long)])
async def test_b6_a_crawl_finds_nothing(get: Get, count: int) -> None:
    chance = random.Random(20261124)
    paths = [f"/{word}{ending}" for word in WORDS for ending in ENDINGS]
    while len(paths) < count:
        paths.append("/" + "/".join(chance.choices(WORDS, k=chance.randint(2, 4))) + chance.choice(ENDINGS))
    for path in chance.sample(paths, count):
        status, headers, body = await get(path, chance.choice(["GET", "GET", "HEAD", "POST"]))
        assert status == 404 and body in (b"404\n", b""), path
        strict(headers)


@pytest.mark.parametrize("method", ["TRACE", "PUT", "DELETE", "PATCH", "POST", "OPTIONS", "HEAD", "PROPFIND"])
@pytest.mark.parametrize("path", [CALLBACK, "/healthz", "/", "/*"])
async def test_b6_no_other_method_is_served(get: Get, method: str, path: str) -> None:
    status, headers, body = await get(f"{path}?state=s&code=c", method)
    assert status in (404, 405) and body in (b"404\n", b"405\n", b"")
    strict(headers)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
         b"HTTP2-Settings: AAMAAABkAAQ\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
         b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", 404),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 400),
        (b"CONNECT 127.0.0.1:50051 HTTP/1.1\r\nHost: 127.0.0.1:50051\r\n\r\n", 404),
        (b"GET http://127.0.0.1:50051/ HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
    ],
    ids=["h2c", "websocket", "http2", "tunnel", "proxy", "tls"],
)  # fmt: skip
async def test_b6_no_other_protocol_is_spoken(service: Whole, sent: bytes, status: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.app.http_port)
    writer.write(sent)
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert int(answer.split(b" ")[1]) == status
    assert b"Upgrade" not in answer and b"Server:" not in answer
    writer.close()
