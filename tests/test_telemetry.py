"""What the log and the metrics show, and what the log never shows whatever level is configured (row C1)."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest

from server.telemetry import Metrics, set_up_logging

LIBRARIES = (
    "peewee", "requests_oauthlib.oauth2_session", "oauthlib.oauth2.rfc6749.clients.base", "urllib3.connectionpool",
    "requests", "aiohttp.client", "aiohttp.access", "asyncio", "schedule", "grpc._cython.cygrpc", "psycopg", "hpack",
    "a library of tomorrow",
)  # fmt: skip


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("server")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def lines(level: str) -> list[str]:
    """Who is heard at each level."""
    stream = io.StringIO()
    set_up_logging("json", level, stream)
    for name in ("server.accounts.refresh", *LIBRARIES):
        for each in ("debug", "info", "warning", "error"):
            getattr(logging.getLogger(name), each)(f"{name} at {each}")
    return [json.loads(line)["event"] for line in stream.getvalue().splitlines()]


def test_at_debug_our_lines_are_shown_and_of_no_library_more_than_warnings() -> None:
    heard = lines("debug")
    assert "server.accounts.refresh at debug" in heard
    others = [line for line in heard if not line.startswith("server.")]
    assert others and all(line.endswith(("warning", "error")) for line in others)


def test_at_error_nothing_below_it_is_shown() -> None:
    assert not [line for line in lines("error") if not line.endswith("error")]


def test_an_exception_is_shown_without_the_values_of_its_frames() -> None:
    for log_format in ("json", "console"):
        stream = io.StringIO()
        set_up_logging(log_format, "debug", stream)
        try:
            fail("token-" + "canary")
        except ValueError:
            logging.getLogger("server").exception("it failed")
        assert "no good" in stream.getvalue() and "token-canary" not in stream.getvalue()


def fail(token: str) -> None:
    raise ValueError("no good")


def test_the_page_of_metrics_shows_each_counter_once() -> None:
    metrics = Metrics()
    metrics.connected("twitter", "connected")
    shown = [line for line in generate_latest(metrics.registry).decode().splitlines() if "accounts_connects" in line]
    assert [line for line in shown if not line.startswith("#")] == [
        'accounts_connects_total{outcome="connected",platform="twitter"} 1.0'
    ]
