"""The commands `callers`: keys for them, what they may do, and blocking them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from server import config
from server.accounts.callers import Permission
from server.commands import operate_callers
from server.commands.plainly import load, told_plainly


@click.group("callers")
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
