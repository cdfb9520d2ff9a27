"""The commands `grants`: answers that nobody could read, and what a restore leaves suspect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from server.commands import backups, operate
from server.commands.in_bulk import confirm, counted, with_bar
from server.commands.plainly import load, told_plainly
from server.config import ConfigError
from server.storage.restored import Suspects


@click.group("grants")
def grants_group() -> None:
    """See and decide about grants whose tokens are in doubt."""


@grants_group.command("unread")
@click.option("--read-again", is_flag=True, help="Store what this version can read.")
@click.pass_obj
def grants_unread(config_file: Path, read_again: bool) -> None:
    """List answers of platforms that nobody could read. They are kept, sealed: they may hold the only live tokens."""
    with told_plainly():
        for line in asyncio.run(operate.unread(load(config_file), read_again=read_again)):
            click.echo(line)


@grants_group.group("suspect", invoke_without_command=True)
@click.pass_context
def suspect_group(context: click.Context) -> None:
    """Count the grants that are suspect since a restore, or decide. Their refresh tokens may be spent.

    Those whose access token has ended were refreshed since the backup if the service was up until then: give them up.
    The others may not have been: try them. A try of a spent one ends what is left of its grant at the platform.
    """
    if context.invoked_subcommand is None:
        with told_plainly():
            for line in asyncio.run(backups.suspects(load(context.obj))):
                click.echo(line)


def chosen(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose some of the suspect grants."""
    options = (
        click.option("--platform", help="Only of this platform."),
        click.option("--grant", "grant_ids", multiple=True, metavar="ID", help="Only this one; may be repeated."),
        click.option("--ended/--living", default=None, help="Only those whose access token has ended, or lives."),
        click.option("--all", "everything", is_flag=True, help="All of them, whatever became of their access tokens."),
        click.option("--yes", is_flag=True, help="Do not ask."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def to_suspects(*, everything: bool, **which: Any) -> Suspects:
    """Raises ConfigError where nothing says which: what is done to them cannot be undone."""
    if not everything and which["ended"] is None and not which["grant_ids"]:
        raise ConfigError(["say which: --living, --ended, --grant or --all"])
    return Suspects(**which)


@suspect_group.command("try")
@chosen
@click.pass_obj
def suspect_try(config_file: Path, /, *, yes: bool, **which: Any) -> None:
    """Send their refresh tokens once more. Shortly before the access tokens end, or now where those have ended."""
    with told_plainly():
        settings = load(config_file)
        suspects = to_suspects(**which)
        if suspects.platform is not None:
            operate.check_registered(settings, suspects.platform)
        if not (count := asyncio.run(backups.count_suspects(settings, suspects))):
            click.echo("nothing to do: there are no such suspect grants")
            return
        confirm(f"{counted(count, 'grant')}: a try of a spent token ends its grant.", yes=yes)
        tried = with_bar("grants", lambda bar: backups.try_suspects(settings, suspects, bar))
    click.echo(f"{counted(tried, 'grant')} to be tried once more; one whose token was spent becomes EXPIRED")


@suspect_group.command("give-up")
@chosen
@click.pass_obj
def suspect_give_up(config_file: Path, /, *, yes: bool, **which: Any) -> None:
    """Call their accounts EXPIRED without asking the platform. Why: REFRESH_OUTCOME_LOST. Users connect again."""
    with told_plainly():
        settings = load(config_file)
        suspects = to_suspects(**which)
        if not (count := asyncio.run(backups.count_suspects(settings, suspects))):
            click.echo("nothing to do: there are no such suspect grants")
            return
        confirm(f"{counted(count, 'grant')}: their users have to connect again.", yes=yes)
        lost = with_bar("grants", lambda bar: backups.give_up_suspects(settings, suspects, bar))
    click.echo(f"{counted(lost, 'grant')} given up")
