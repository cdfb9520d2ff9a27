"""What all commands share: the settings are read, and what an operator can put right is told in a line each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from server import config
from server.accounts.errors import StoreUnavailable
from server.storage.engine import DatabaseUnusable
from server.storage.keyring import KeyRingError
from server.storage.migrate import SchemaMismatch

EXPECTED = (config.ConfigError, KeyRingError, SchemaMismatch, DatabaseUnusable, StoreUnavailable, OSError)


@contextmanager
def told_plainly() -> Iterator[None]:
    """What an operator can put right is told in a line each, without a traceback."""
    try:
        yield
    except config.ConfigError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        sys.exit(2)
    except EXPECTED as error:
        click.echo(f"error: {plain(error)}", err=True)
        sys.exit(2)


def plain(error: Exception) -> str:
    """What the system says of a file, without its number: who runs commands does not know errors by it."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def load(config_file: Path | None) -> config.Settings:
    """Raises ConfigError. The option is asked for here, so that help is given without it."""
    if config_file is None:
        raise click.UsageError("Missing option '--config' (or the variable ACCOUNTS_CONFIG).")
    from server.parts import load_settings  # noqa: PLC0415 (imports the whole server)

    return load_settings(config_file)
