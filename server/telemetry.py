"""Logging and metrics: structlog formats what the standard library logs; Prometheus counts what the domain reports.

Labels come from closed sets; no metric and no log line carries a secret. Libraries log tokens, queries or bound
parameters at DEBUG, so whatever level is configured, only the service's own lines are below WARNING.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cache, partial
from typing import TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, start_http_server

from server.accounts.bulkhead import Places
from server.accounts.gate import Gate
from server.accounts.ports import Journal

OUR_LINES = "server"
GATE_STATES = ("open", "probing", "held", "paused")
CALL_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
LAG_BUCKETS = (0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400)

# Else each counter is there twice, the second time with when it was begun.
disable_created_metrics()  # type: ignore[no-untyped-call]


def set_up_logging(log_format: str, level: str, stream: TextIO = sys.stderr) -> None:
    """Sends what is logged to `stream` as JSON lines or for the console, one line per event."""
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
    handler.setLevel(level.upper())
    root.setLevel(logging.WARNING)
    logging.getLogger(OUR_LINES).setLevel(level.upper())


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
        self._in_flight = Gauge(
            "accounts_refreshes_in_flight", "Refreshes under way.", ["platform"], registry=self.registry
        )
        self._gate = Gauge(
            "accounts_platform_gate",
            "1 for the state that a platform's gate is in: open, probing (after failures), held (for a while), paused.",
            ["platform", "state"],
            registry=self.registry,
        )
        self._grants = Gauge(
            "accounts_grants", "Grants by state, as last counted.", ["platform", "state"], registry=self.registry
        )
        self._journal = Gauge(
            "accounts_journal_entries",
            "Answers to refreshes that the database has not taken yet.",
            registry=self.registry,
        )
        self._certificates = Gauge(
            "accounts_certificate_expire_timestamp_seconds",
            "When the certificate of the gRPC port ends (server), and the first of the client CAs (client_ca).",
            ["certificate"],
            registry=self.registry,
        )
        self._key_wraps = Gauge(
            "accounts_key_wraps",
            "Data keys that the active key has wrapped; rotate it by 2**31.",
            registry=self.registry,
        )
        self._broken_seals = Gauge(
            "accounts_broken_seals", "How often a sealed value did not open; never by itself.", registry=self.registry
        )
        self._gone_back = Gauge(
            "accounts_database_gone_back", "1 once the database was restored under this server.", registry=self.registry
        )
        self._audit_lag = Gauge(
            "accounts_audit_unlinked_seconds",
            "How long the oldest event that is not linked into the audit's chain has been waiting, as last looked at.",
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
        self._refusals = Counter(
            "accounts_refusals", "Calls that were refused, by method and reason.", ["method", "reason"],
            registry=self.registry,
        )  # fmt: skip
        self._calls = Counter(
            "accounts_calls", "Calls on accounts' behalf, by platform, HTTP method and outcome.",
            ["platform", "method", "outcome"], registry=self.registry,
        )  # fmt: skip
        self._call_seconds = Histogram(
            "accounts_call_seconds", "Calls on accounts' behalf, from token to answer.", ["platform"],
            buckets=CALL_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._calls_in_flight = Gauge(
            "accounts_calls_in_flight", "Calls on accounts' behalf under way.", ["platform"], registry=self.registry
        )
        self._watchers = Gauge("accounts_watchers", "Watches under way.", registry=self.registry)
        self._cut_off = Counter(
            "accounts_watchers_cut_off",
            "Watchers that were ended: slow ones, those of blocked callers; all of them at once where there was a gap.",
            ["why"],
            registry=self.registry,
        )
        self._of_refresh = cache(self._children_of_refresh)
        self._of_call = cache(self._children_of_call)

    def _children_of_refresh(self, platform: str, outcome: str) -> tuple[Counter, Histogram, Histogram]:
        """Looked up once: labels cost more than counting."""
        return (
            self._refreshes.labels(platform, outcome),
            self._refresh_seconds.labels(platform),
            self._refresh_lag.labels(platform),
        )

    def refreshed(self, platform: str, outcome: str, seconds: float, lag: timedelta) -> None:
        count, durations, lags = self._of_refresh(platform, outcome)
        count.inc()
        durations.observe(seconds)
        lags.observe(max(0.0, lag.total_seconds()))

    def _children_of_call(self, platform: str, method: str, outcome: str) -> tuple[Counter, Histogram]:
        return self._calls.labels(platform, method, outcome), self._call_seconds.labels(platform)

    def acted(self, platform: str, method: str, outcome: str, seconds: float) -> None:
        count, durations = self._of_call(platform, method, outcome)
        count.inc()
        durations.observe(seconds)

    def watch_calls(self, calls: Mapping[str, Places]) -> None:
        """Reads how many calls are under way whenever it is asked for."""
        for name, places in calls.items():
            self._calls_in_flight.labels(name).set_function(partial(getattr, places, "taken"))

    def watch(self, gates: Mapping[str, Gate], journal: Journal) -> None:
        """Reads the state of gates and journal whenever it is asked for."""
        for name, gate in gates.items():
            self._in_flight.labels(name).set_function(partial(getattr, gate, "in_flight"))
            for state in GATE_STATES:
                self._gate.labels(name, state).set_function(partial(is_in, gate, state))
        self._journal.set_function(lambda: journal.depth)

    def watch_keys(self, wraps: Callable[[], float], broken: Callable[[], float]) -> None:
        """Reads how worn the active key is, and how many sealed values did not open, whenever it is asked for."""
        self._key_wraps.set_function(wraps)
        self._broken_seals.set_function(broken)

    def watch_database(self, gone_back: Callable[[], bool]) -> None:
        """Reads whether the database has gone back whenever it is asked for."""
        self._gone_back.set_function(gone_back)

    def counted(self, census: Mapping[tuple[str, str], int]) -> None:
        """Takes the grants by platform and state, as they were counted now."""
        self._grants.clear()
        for (platform, state), count in census.items():
            self._grants.labels(platform, state).set(count)

    def linked(self, lag: timedelta) -> None:
        """Takes how far the audit's chain is behind, as it was looked at now."""
        self._audit_lag.set(lag.total_seconds())

    def certificates_end(self, expire_times: Mapping[str, datetime]) -> None:
        for name, moment in expire_times.items():
            self._certificates.labels(name).set(moment.timestamp())

    def connected(self, platform: str, outcome: str) -> None:
        self._connects.labels(platform, outcome).inc()

    def revoked(self, platform: str, outcome: str) -> None:
        self._revocations.labels(platform, outcome).inc()

    def refused(self, method: str, reason: str) -> None:
        self._refusals.labels(method, reason).inc()

    def watch_watchers(self, count: Callable[[], float]) -> None:
        """Reads how many watches are under way, whenever it is asked for."""
        self._watchers.set_function(count)

    def cut_off(self, why: str) -> None:
        self._cut_off.labels(why).inc()

    def serve(self, host: str, port: int) -> int:
        """Serves /metrics on a port of its own, from a thread of its own; the port that was bound."""
        server, _ = start_http_server(port, host, registry=self.registry)
        return int(server.server_port)


def is_in(gate: Gate, state: str) -> bool:
    if gate.paused:
        return state == "paused"
    if gate.held:
        return state == "held"
    return state == ("probing" if gate.probing else "open")
