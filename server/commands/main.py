"""The commands of `python -m server`: serve (the default), migrate, and groups that look at and change the rest."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from server import config
from server.accounts.callers import Permission
from server.commands import operate, operate_callers
from server.commands.backup_group import backup_command, restore_command, restored_command
from server.commands.grants import grants_group
from server.commands.keys import keys_group
from server.commands.mass_revoke import accounts_group
from server.commands.plainly import load, told_plainly
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


main.add_command(keys_group)
main.add_command(accounts_group)
main.add_command(grants_group)
main.add_command(backup_command)
main.add_command(restore_command)
main.add_command(restored_command)


@main.group("platforms")
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


@main.group("callers")
def callers_group() -> None:
    """Add, look at and block callers. Running servers follow a block within a second or two."""


@callers_group.command("add")
@click.argument("name")
@click.option("--permission", "permissions", multiple=True, type=click.Choice([each.value for each in Permission]))
@click.option("--profile", "profiles", multiple=True, help='A prefix of the profile ids it may see; "*" for all.')
@click.option("--platform", "platforms", multiple=True, help='A platform it may see; "*" for all.')
@click.option("--route", "routes", multiple=True, help='What it may send, such as "twitter POST /2/tweets".')
@click.pass_obj
def callers_add(
    config_file: Path,
    name: str,
    permissions: tuple[str, ...],
    profiles: tuple[str, ...],
    platforms: tuple[str, ...],
    routes: tuple[str, ...],
) -> None:
    """Make a key for the caller NAME. The key goes to stderr, once; the section of a new caller to stdout.

    The section may be added to the end of the configuration; rights with which no server starts are refused. For a
    caller that is there already nothing goes to stdout; stderr says which line of its section to replace. Nothing is
    written, and it works before there is a sound configuration.
    """
    with told_plainly():
        try:
            settings: config.Settings | None = load(config_file)
        except config.ConfigError:
            settings = None
        key, digest = operate_callers.new_key()
        rights: dict[str, Sequence[str]] = {
            "permissions": permissions, "profiles": profiles, "platforms": platforms, "routes": routes,
        }  # fmt: skip
        present = settings.callers.get(name) if settings is not None else None
        if present is None:
            section, told = operate_callers.new_section(name, digest, rights), []
        else:
            section, told = [], operate_callers.with_another_key(name, present, digest, rights)
    click.echo("\n".join([f"The key of {name}, shown this once:", key, *told]), err=True)
    click.echo("\n".join(section), nl=bool(section))


@callers_group.command("list")
@click.pass_obj
def callers_list(config_file: Path) -> None:
    """Tell what each caller may do and see, and who is blocked. A block shows who set it, and why."""
    with told_plainly():
        for line in asyncio.run(operate_callers.callers(load(config_file))):
            click.echo(line)


@callers_group.command("check")
@click.argument("name")
@click.pass_obj
def callers_check(config_file: Path, name: str) -> None:
    """Explain in words what NAME may do and see. Also how it proves itself."""
    with told_plainly():
        for line in asyncio.run(operate_callers.check(load(config_file), name)):
            click.echo(line)


@callers_group.command("block")
@click.argument("name")
@click.option("--reason", required=True, help="Why; operators are told, the caller is not.")
@click.pass_obj
def callers_block(config_file: Path, name: str, reason: str) -> None:
    """Refuse every call of NAME, in all servers."""
    with told_plainly():
        asyncio.run(operate_callers.set_block(load(config_file), name, reason.strip() or "no reason given"))
    click.echo(f"{name} is blocked")


@callers_group.command("unblock")
@click.argument("name")
@click.pass_obj
def callers_unblock(config_file: Path, name: str) -> None:
    """Let NAME in again."""
    with told_plainly():
        asyncio.run(operate_callers.set_block(load(config_file), name, ""))
    click.echo(f"{name} is let in")


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
