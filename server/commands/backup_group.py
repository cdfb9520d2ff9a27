"""The commands `backup`, `restore` and `restored`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from server.commands import backups
from server.commands.in_bulk import with_bar
from server.commands.plainly import load, told_plainly

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
