"""The commands of `python -m server`: serve (the default), migrate, config, audit, and those of the files beside it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import click

from server import config
from server.commands import operate
from server.commands.backup_group import backup_command, restore_command, restored_command
from server.commands.callers import callers_group
from server.commands.grants import grants_group
from server.commands.keys import keys_group
from server.commands.mass_revoke import accounts_group
from server.commands.plainly import load, told_plainly
from server.commands.platforms import platforms_group
from server.process import keep_to_itself
from server.storage.keyring import KeyRing
from server.storage.migrate import migrate


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="ACCOUNTS_CONFIG",
    show_envvar=True,
    help="The TOML file with the settings; config.example.toml explains each.",
)
@click.pass_context
def main(context: click.Context, config_file: Path | None) -> None:
    """Connected Accounts. Without a command it serves until SIGTERM or SIGINT."""
    keep_to_itself()
    # The calendar reads naive local time; a daylight-saving change must not move it.
    os.environ["TZ"] = "UTC"
    time.tzset()
    context.obj = config_file
    if context.invoked_subcommand is None:
        context.invoke(serve)


@main.command()
@click.pass_obj
def serve(config_file: Path) -> None:
    """Serve until SIGTERM or SIGINT (the default command)."""
    from server.app import StartRefused, serve_until_signal  # noqa: PLC0415 (other commands need less)

    with told_plainly():
        settings = load(config_file)
        try:
            import uvloop  # noqa: PLC0415

            uvloop.run(serve_until_signal(settings), debug=False)  # not even if PYTHONASYNCIODEBUG says so
        except StartRefused as error:
            raise OSError(str(error)) from None


@main.command("migrate")
@click.pass_obj
def migrate_command(config_file: Path) -> None:
    """Bring the database to the schema of this version. Only this command changes the schema."""
    from server.parts import open_engine  # noqa: PLC0415 (imports the whole server)

    with told_plainly():
        settings = load(config_file)
        ring = KeyRing.load(settings.keys.file)
        engine = open_engine(settings, create=True)
        try:
            applied = migrate(engine.database, ring)
        finally:
            engine.close()
    click.echo("\n".join(f"applied {name}" for name in applied) or "nothing to do")


@main.group("config")
def config_group() -> None:
    """Look at the settings."""


@config_group.command("check")
@click.pass_obj
def config_check(config_file: Path) -> None:
    """Name every problem at once, or print the effective settings. Secrets are not shown."""
    with told_plainly():
        click.echo(config.to_text(load(config_file)))


@main.group("audit")
def audit_group() -> None:
    """Verify that nobody has changed the audit."""


@audit_group.command("verify")
@click.option("--head", metavar="POSITION:LINK", help="A head that an earlier run printed; it must still be there.")
@click.pass_obj
def audit_verify(config_file: Path, head: str | None) -> None:
    """Walk the hash chain of all events and name the first broken link. What is not linked yet is shown.

    It exits with 1 if the chain is broken. It works beside a running server.
    """
    with told_plainly():
        lines, whole = asyncio.run(operate.verify_audit(load(config_file), head))
    for line in lines:
        click.echo(line)
    sys.exit(0 if whole else 1)


for each in (
    keys_group, platforms_group, callers_group, accounts_group, grants_group,
    backup_command, restore_command, restored_command,
):  # fmt: skip
    main.add_command(each)
