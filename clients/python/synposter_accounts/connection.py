"""How both clients reach the service: channel options, the API key's header, and where a key may go in clear."""

from __future__ import annotations

import ipaddress
import json
from typing import Final

PACKAGE: Final = "synposter.accounts.v1"
READS: Final = (("AccountService", "GetAccount"), ("AccountService", "ListAccounts"), ("PlatformService", "ListUsage"))
PATIENCE: Final = 1.0
"""Seconds that a call on an account's behalf is waited for beyond its own time, since the service tells its end."""
LARGEST_ANSWER: Final = 9 * 1024 * 1024
"""A platform's answer has up to 8 MiB; gRPC's own limit is 4."""

# Reads alone: a write whose answer was lost may have been carried out, so the caller decides whether to repeat it.
READS_ARE_RETRIED: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": f"{PACKAGE}.{service}", "method": name} for service, name in READS],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 3,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
OPTIONS: Final = (
    ("grpc.service_config", READS_ARE_RETRIED),
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", LARGEST_ANSWER),
    # A watch whose connection is cut without a word notices within 80 s, and is back soon after a restart.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    # How long a connection may take to begin, TLS included: from another continent some tenths of a second.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
# gRPC obeys http_proxy for loopback too, unless no_proxy says otherwise: the key would leave this machine in clear.
OPTIONS_IN_CLEAR: Final = (*OPTIONS, ("grpc.enable_http_proxy", 0))


def check_in_clear(target: str) -> None:
    """Raises ValueError unless `target` is on this machine: a key in clear goes nowhere else."""
    host = target.removeprefix("ipv4:").removeprefix("ipv6:").rpartition(":")[0].strip("[]")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = target.startswith("unix:")
    if not loopback:
        raise ValueError(
            f"{target} is not a host:port of this machine: pass credentials, or the API key would travel in clear"
        )


def bearer(api_key: str) -> tuple[tuple[str, str], ...]:
    """The metadata that names the caller (RFC 6750 section 2.1).

    Raises ValueError, which does not show the key, for one that no header can carry: often a file's last newline.
    """
    if not api_key or not all("!" <= character <= "~" for character in api_key):
        raise ValueError("an API key is visible ASCII without spaces; look for a newline at its end")
    return (("authorization", f"Bearer {api_key}"),)
