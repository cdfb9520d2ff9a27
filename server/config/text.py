"""The effective settings as text, without secrets."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from server.config.settings import Settings
from server.config.tree import merged
from server.config.values import SECONDS

NO_LIMIT = "no limit"


def to_text(settings: Settings) -> str:
    """The effective settings, one key a line; secrets are files and variables, which are named, not read."""
    lines: list[str] = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else name, inner)
        elif value is not None:
            lines.append(f"{prefix} = {json.dumps(as_written(value), ensure_ascii=False)}")

    walk("", merged(settings.model_dump(), effective(settings)))
    return "\n".join(lines)


def effective(settings: Settings) -> dict[str, Any]:
    """What the settings come to where that is not what was written, or must not be shown whole."""
    return {
        "server": {"reflection": settings.server.serves_reflection},
        "database": {"url": settings.database.shown},
        "refresh": {"journal": settings.journal_folder},
        "callers": {
            name: {
                "api_keys_sha256": tuple(f"{digest[:8]}…" for digest in caller.api_keys_sha256),
                # A line that was lost is seen here.
                "rate": caller.rate or NO_LIMIT,
                "accounts_a_minute": caller.accounts_a_minute or NO_LIMIT,
            }
            for name, caller in settings.callers.items()
        },
    }


def as_written(value: Any) -> Any:
    """A setting as it would stand in the file."""
    if isinstance(value, timedelta):
        seconds = int(value.total_seconds())
        unit = next(unit for unit in reversed(SECONDS) if seconds % SECONDS[unit] == 0)
        return f"{seconds // SECONDS[unit]}{unit}"
    if isinstance(value, tuple):
        return [as_written(each) for each in value]
    return str(value) if isinstance(value, Path) else value
