"""The commands `platforms`: which there are, and pausing them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from server.commands import operate
from server.commands.plainly import load, told_plainly


@click.group("platforms")
def platforms_group() -> None:
    """See and pause platforms. Running servers follow within a second or two."""


@platforms_group.command("list")
@click.pass_obj
def platforms_list(config_file: Path) -> None:
    """Tell which platforms are known, registered and paused. A pause shows who set it, and why."""
    with told_plainly():
        for line in asyncio.run(operate.platforms(load(config_file))):
            click.echo(line)


@platforms_group.command("pause")
@click.argument("platform")
@click.option("--reason", required=True, help="Why; operators and callers are told.")
@click.pass_obj
def platforms_pause(config_file: Path, platform: str, reason: str) -> None:
    """Send PLATFORM nothing any more: no connect, refresh or revocation. Accounts stay as they are."""
    with told_plainly():
        asyncio.run(operate.set_pause(load(config_file), platform, reason.strip() or "no reason given"))
    click.echo(f"{platform} is paused")


@platforms_group.command("resume")
@click.argument("platform")
@click.pass_obj
def platforms_resume(config_file: Path, platform: str) -> None:
    """Let PLATFORM go on, and end whatever holds it. That is a pause, an open breaker, a wait that it asked for.

    Verdicts that were held because it called too many grants dead stand from now on.
    """
    with told_plainly():
        asyncio.run(operate.set_pause(load(config_file), platform, ""))
    click.echo(f"{platform} goes on")
