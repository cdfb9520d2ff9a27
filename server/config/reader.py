"""Reads the settings: the file, the environment over it, and every problem of both."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from server.config.checks import check, check_caller, sound_each
from server.config.settings import CallerSettings, Database, Keys, Platform, Settings
from server.config.tree import merged

OPEN_SECTIONS = ("server", "log", "refresh", "retention")
"""Whose wrong values are shown; elsewhere a secret may stand in the wrong place."""


class ConfigError(Exception):
    """The settings cannot be used; `problems` names all of them, each with its key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load(file: Path, known_platforms: tuple[str, ...]) -> Settings:
    """Reads and checks the settings. Raises ConfigError with every problem found.

    Relative paths are relative to the file's folder.
    """
    written, folder = read_toml(file), file.parent.absolute()
    try:
        data = merged(written, EnvSettingsSource(Settings)())
    except SettingsError as error:
        raise ConfigError([*unknown_variables({}), f"environment: {error}: lists are JSON: '[\"read\"]'"]) from None
    problems = [*unknown_variables(data), *check(data, folder, known_platforms)]
    try:
        settings = Settings(**written)
    except ValidationError as error:
        raise ConfigError([describe(each) for each in error.errors()] + problems) from None
    if problems:
        raise ConfigError(problems)
    return with_absolute_paths(settings, folder)


def read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError([f"{file}: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError([f"{file}: not TOML: {error}"]) from None


def describe(error: Any) -> str:
    """One problem as a line."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if error["type"] == "missing":
        return f"{key}: required"
    shown = error["loc"][0] in OPEN_SECTIONS and isinstance(error["input"], str | int | float)
    value = f" (it is {json.dumps(error['input'])})" if shown else ""
    return f"{key}: {error['msg'].removeprefix('Value error, ')}{value}"


def caller_problems(name: str, section: dict[str, Any], known_platforms: tuple[str, ...]) -> list[str]:
    """What is wrong with a caller's section that is not in a file yet."""
    try:
        caller = CallerSettings.model_validate(section)
    except ValidationError as error:
        return [f"callers.{name}.{describe(each)}" for each in error.errors()]
    return list(check_caller(name, caller, known_platforms))


def unknown_variables(data: dict[str, Any]) -> Iterator[str]:
    """Environment variables that look like settings and are none. One that holds a client secret is none of them."""
    secrets = {platform.client_secret_env for platform in sound_each(Platform, data.get("platforms")).values()}
    for name in os.environ:
        if name.upper().startswith("ACCOUNTS_") and name != "ACCOUNTS_CONFIG" and name not in secrets:
            section = name[len("ACCOUNTS_") :].split("__")[0].lower()
            if section not in Settings.model_fields or "__" not in name:
                yield f"{name}: no such setting (ACCOUNTS_SECTION__KEY)"


def with_absolute_paths(settings: Settings, folder: Path) -> Settings:
    """The same settings with each file as an absolute path."""
    database = settings.database
    if database.path is not None:
        database = Database(url=f"sqlite:///{folder / database.path}")
    server = settings.server
    if server.tls is not None:
        files = {name: folder / path for name, path in server.tls if path is not None}
        server = server.model_copy(update={"tls": server.tls.model_copy(update=files)})
    journal = settings.refresh.journal
    platforms = {
        name: platform.model_copy(update={"client_secret_file": folder / platform.client_secret_file})
        if platform.client_secret_file
        else platform
        for name, platform in settings.platforms.items()
    }
    return settings.model_copy(
        update={
            "server": server,
            "database": database,
            "keys": Keys(file=folder / settings.keys.file),
            "platforms": platforms,
            "refresh": settings.refresh.model_copy(update={"journal": folder / journal if journal else None}),
        }
    )
