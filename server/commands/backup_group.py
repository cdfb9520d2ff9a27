"""The commands `backup`, `restore` and `restored`, and those of `grants` for what a restore leaves suspect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click

from server.commands import backups
from server.commands.plainly import load, told_plainly
from server.storage.engine import DatabaseUnusable
from server.storage.restored import Suspects

MOVED = click.option(
    "--moved",
    is_flag=True,
    help="No server has run since just before the backup was made: nothing was refreshed, and everything goes on.",
)


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def backup_command(config_file: Path, file: Path) -> None:
    """Write a backup of the database to FILE, beside running servers.

    It holds no key: back up the key file elsewhere, or the backup can be opened by whoever has it.
    """
    with told_plainly():
        settings = load(config_file)
        total = backups.size_of(settings)
        with click.progressbar(length=total, label="copying", show_pos=False) as bar:
            for size in backups.back_up(settings, file):
                bar.update(min(size, total) - bar.pos)
    click.echo(f"wrote {file}, {file.stat().st_size} bytes")


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@MOVED
@click.pass_obj
def restore_command(config_file: Path, file: Path, moved: bool) -> None:
    """Bring the backup FILE to where the settings say. Stop the servers first. Then it does what `restored` does.

    A SQLite file that is there is moved aside; a PostgreSQL database must be empty. Journal and keys stay.
    """
    with told_plainly():
        settings = load(config_file)
        told = []
        try:
            for line in backups.place(settings, file):
                told.append(line)
                click.echo(line)
            put_to_use(settings, moved=moved, unmarked=False)
        except Exception:
            unchanged = ["nothing was changed"] if settings.database.path else []
            click.echo("\n".join(told or unchanged), err=True)
            raise


@click.command("restored")
@MOVED
@click.option("--unmarked", is_flag=True, help="Also where nothing in the database shows that it was restored.")
@click.pass_obj
def restored_command(config_file: Path, moved: bool, unmarked: bool) -> None:
    """Put to use a database that was restored by other means. Do it before any server is started.

    Every refresh token that works once may have been used since the backup, and must not be sent again: its grant
    becomes suspect. Its access token is served while it lives; what then, operators say: see `grants suspect`.
    """
    with told_plainly():
        put_to_use(load(config_file), moved=moved, unmarked=unmarked)


def put_to_use(settings: Any, **how: bool) -> None:
    for line in with_bar("looking through grants", lambda bar: backups.put_to_use(settings, bar=bar, **how)):
        click.echo(line)


@click.group("suspect", invoke_without_command=True)
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
    )
    for option in reversed(options):
        command = option(command)
    return command


@suspect_group.command("try")
@chosen
@click.option("--all", "everything", is_flag=True, help="All of them, whatever became of their access tokens.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def suspect_try(config_file: Path, /, *, everything: bool, yes: bool, **which: Any) -> None:
    """Send their refresh tokens once more. Shortly before the access tokens end, or now where those have ended."""
    with told_plainly():
        settings = load(config_file)
        if not everything and which["ended"] is None and not which["grant_ids"]:
            raise DatabaseUnusable("say which: --living, --ended, --grant or --all")
        if (platform := which["platform"]) is not None and platform not in settings.platforms:
            raise DatabaseUnusable(f"platform {platform} is not in the settings")
        count = asyncio.run(backups.count_suspects(settings, Suspects(**which)))
        if not yes:
            click.confirm(f"{count} grants: a try of a spent token ends its grant. Go on?", abort=True)
        tried = with_bar("grants", lambda bar: backups.try_suspects(settings, Suspects(**which), bar))
    click.echo(f"{tried} grants are tried once more; one whose token was spent becomes EXPIRED")


@suspect_group.command("give-up")
@chosen
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def suspect_give_up(config_file: Path, /, *, yes: bool, **which: Any) -> None:
    """Call their accounts EXPIRED without asking the platform. Why: REFRESH_OUTCOME_LOST. Users connect again."""
    with told_plainly():
        settings = load(config_file)
        count = asyncio.run(backups.count_suspects(settings, Suspects(**which)))
        if not yes:
            click.confirm(f"{count} grants: their users have to connect again. Go on?", abort=True)
        lost = with_bar("grants", lambda bar: backups.give_up_suspects(settings, Suspects(**which), bar))
    click.echo(f"{lost} grants are given up")


def with_bar(label: str, work: Callable[[Callable[[int], backups.Progress]], Awaitable[Any]]) -> Any:
    """Runs what tells its progress, with a bar from when it knows how much there is to do."""
    bars: list[Any] = []

    def begin(total: int) -> backups.Progress:
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
