"""Trees of settings: nested dicts, as TOML gives them."""

from __future__ import annotations

from typing import Any


def merged(under: Any, over: Any) -> Any:
    """Two trees of settings as one; `over` wins."""
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    return under | {name: merged(under.get(name), value) for name, value in over.items()}
