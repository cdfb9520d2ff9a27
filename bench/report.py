"""The lines of the report, and ratios in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Row:
    """One line of the report; `holds` is None where the figure has no limit."""

    name: str
    figure: str
    limit: str = ""
    holds: bool | None = None


def at_least(name: str, ratios: Sequence[float], limit: float) -> Row:
    return Row(name, told(ratios), f">= {limit:g}", statistics.median(ratios) >= limit)


def at_most(name: str, ratios: Sequence[float], limit: float) -> Row:
    return Row(name, told(ratios), f"<= {limit:g}", statistics.median(ratios) <= limit)


def told(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"


def per_second(name: str, rates: Sequence[float]) -> Row:
    return Row(name, f"{statistics.median(rates):,.0f}")
