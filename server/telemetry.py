"""Logging and metrics: structlog formats what the standard library logs; Prometheus counts what the domain reports.

Labels come from closed sets; no metric and no log line carries a secret. Libraries that log tokens, queries or bound
parameters at DEBUG are pinned to WARNING whatever level is configured.
"""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from typing import TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

LOUD_LIBRARIES = (
    "peewee",
    "requests_oauthlib",
    "oauthlib",
    "urllib3",
    "aiohttp",
    "asyncio",
    "schedule",
    "grpc",
    "hpack",
)
LAG_BUCKETS = (0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400)


def set_up_logging(log_format: str, level: str, stream: TextIO = sys.stderr) -> None:
    """Sends the root logger to `stream` as JSON lines or for the console, one line per event."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
    )
    # The plain traceback shows no local variables: they can hold secrets.
    processors: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format == "json":
        processors.append(structlog.processors.format_exc_info)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*processors, renderer])
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in LOUD_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


class Metrics:
    """Fulfils the domain's `Observer` port with Prometheus metrics, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._refreshes = Counter(
            "accounts_refreshes", "Refreshes by platform and outcome.", ["platform", "outcome"], registry=self.registry
        )
        self._refresh_seconds = Histogram(
            "accounts_refresh_seconds", "From claim to commit.", ["platform"], registry=self.registry
        )
        self._refresh_lag = Histogram(
            "accounts_refresh_lag_seconds",
            "How long after its due time a refresh was claimed.",
            ["platform"],
            buckets=LAG_BUCKETS,
            registry=self.registry,
        )
        self._connects = Counter(
            "accounts_connects", "Ended connects by platform and outcome.", ["platform", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self._revocations = Counter(
            "accounts_platform_revocations", "Revocations sent to platforms, by outcome.", ["platform", "outcome"],
            registry=self.registry,
        )  # fmt: skip

    def refreshed(self, platform: str, outcome: str, seconds: float, lag: timedelta) -> None:
        self._refreshes.labels(platform, outcome).inc()
        self._refresh_seconds.labels(platform).observe(seconds)
        self._refresh_lag.labels(platform).observe(lag.total_seconds())

    def connected(self, platform: str, outcome: str) -> None:
        self._connects.labels(platform, outcome).inc()

    def revoked(self, platform: str, outcome: str) -> None:
        self._revocations.labels(platform, outcome).inc()

    def serve(self, host: str, port: int) -> int:
        """Serves /metrics on a port of its own, from a thread of its own; the port that was bound."""
        server, _ = start_http_server(port, host, registry=self.registry)
        return int(server.server_port)
