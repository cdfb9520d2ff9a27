"""The commands `keys`: make, rotate, activate, rewrap and retire the keys that wrap all others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from server.commands import key_life
from server.commands.in_bulk import counted
from server.commands.plainly import load, told_plainly
from server.storage.keyring import KeyRing

DEFAULT_RATE = 2000.0


@click.group("keys")
def keys_group() -> None:
    """Manage the key file, beside running servers too."""


@keys_group.command("new")
@click.pass_obj
def keys_new(config_file: Path) -> None:
    """Write a new key file where the settings name one. An existing file is never overwritten."""
    with told_plainly():
        settings = load(config_file)
        if not settings.keys.file.exists():
            key_life.refuse_over_data(settings)
        key_id = KeyRing.create(settings.keys.file)
    click.echo(f"wrote {settings.keys.file} with the active key {key_id}; keep it apart from backups of the database")


@keys_group.command("status")
@click.pass_obj
def keys_status(config_file: Path) -> None:
    """Tell what each key wraps, and what each process knows and uses."""
    with told_plainly():
        for line in asyncio.run(key_life.status(load(config_file))):
            click.echo(line)


@keys_group.command("rotate")
@click.pass_obj
def keys_rotate(config_file: Path) -> None:
    """Add a new key to the key file. It only opens until it is activated."""
    with told_plainly():
        settings = load(config_file)
        key_id = asyncio.run(key_life.rotate(settings))
    click.echo(
        f"added {key_id} to {settings.keys.file}. Bring the file to every machine, and into its backup; running "
        f"servers take it up within seconds. Then: keys activate {key_id}"
    )


@keys_group.command("activate")
@click.argument("key_id", metavar="ID")
@click.pass_obj
def keys_activate(config_file: Path, key_id: str) -> None:
    """Seal with the key ID from now on. It is refused until every running server knows it."""
    with told_plainly():
        settings = load(config_file)
        asyncio.run(key_life.activate(settings, key_id))
    click.echo(
        f"{key_id} is active in {settings.keys.file}. Bring the file to every machine again; what older keys wrap is "
        "wrapped anew by: keys rewrap"
    )


@keys_group.command("rewrap")
@click.option("--rate", type=click.FloatRange(min=1), default=DEFAULT_RATE, show_default=True, help="Values a second.")
@click.pass_obj
def keys_rewrap(config_file: Path, rate: float) -> None:
    """Wrap every value with the active key. It opens none, may be stopped, and goes on where it was."""
    with told_plainly():
        lines = asyncio.run(rewrap(config_file, rate))
    for line in lines:
        click.echo(line)


async def rewrap(config_file: Path, rate: float) -> list[str]:
    async with key_life.rewrapping(load(config_file), rate) as (rewrapper, total):
        with click.progressbar(length=total, label="rewrapping", show_pos=True) as bar:
            report = await rewrapper.run(bar.update)
    lines = [f"{counted(report.rewrapped, 'value')} rewrapped"]
    if not report.complete:
        lines.append("some values were always in others' hands; run it again")
    if report.broken:
        lines.append(f"not opened, and left under their key: {counted(report.broken, 'value')}; the log names them")
    return lines


@keys_group.command("retire")
@click.argument("key_id", metavar="ID")
@click.pass_obj
def keys_retire(config_file: Path, key_id: str) -> None:
    """Erase the key ID from the key file. It is refused while anything is wrapped with it or may still be."""
    with told_plainly():
        settings = load(config_file)
        asyncio.run(key_life.retire(settings, key_id))
    click.echo(
        f"{key_id} is erased from {settings.keys.file}. Bring the file to every machine. Backups of the database from "
        "before the rewrap open only with a key file from before this"
    )


@keys_group.command("forget")
@click.argument("process")
@click.pass_obj
def keys_forget(config_file: Path, process: str) -> None:
    """Pass over PROCESS, which was killed and will not come back. Keys are activated and retired without it."""
    with told_plainly():
        asyncio.run(key_life.forget(load(config_file), process))
    click.echo(f"{process} is forgotten")
