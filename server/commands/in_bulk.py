"""What commands share that change many rows: they ask first, with the count, and show how far they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import click

Progress: TypeAlias = Callable[[int], None]
"""Is told how many more are done."""


def counted(number: int, noun: str) -> str:
    """The number with its noun, which takes an s where it is not one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def confirm(question: str, *, yes: bool) -> None:
    """Asks unless `yes`. A no ends the command with exit code 1 (click.Abort)."""
    if not yes:
        click.confirm(f"{question} Go on?", abort=True)


def with_bar(label: str, work: Callable[[Callable[[int], Progress]], Awaitable[Any]]) -> Any:
    """Runs what tells its progress, with a bar from when it knows how much there is to do."""
    bars: list[Any] = []

    def begin(total: int) -> Progress:
        bars.append(click.progressbar(length=total, label=label, show_pos=True))
        bars[0].__enter__()
        return bars[0].update  # type: ignore[no-any-return]

    async def run() -> Any:
        return await work(begin)

    try:
        return asyncio.run(run())
    finally:
        for bar in bars:
            bar.__exit__(None, None, None)
