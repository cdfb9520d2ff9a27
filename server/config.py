"""The one reader of settings: a TOML file plus environment variables `ACCOUNTS_SECTION__KEY`, which win.

All problems are named at once, each with its key. The keys are a contract; config.example.toml explains them.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from server.accounts.callers import Caller, Permission
from server.accounts.model import Secret

SPAN = re.compile(r"(\d{1,9})(s|m|h|d)")
LONGEST_SPAN = timedelta(days=3650)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "revocation_endpoint", "identity_endpoint", "api_base")
SANDBOX_IDENTITY_INTERVAL = timedelta(minutes=1)


class ConfigError(Exception):
    """The settings cannot be used; `problems` names all of them, each with its key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def to_span(value: Any) -> Any:
    if isinstance(value, timedelta):  # a default
        return value
    found = SPAN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a span is text such as "90s", "5m", "2h" or "30d"')
    return timedelta(seconds=int(found[1]) * SECONDS[found[2]])


def positive(span: timedelta) -> timedelta:
    if span <= timedelta():
        raise ValueError("must be longer than nothing")
    if span > LONGEST_SPAN:
        raise ValueError("must be at most ten years")
    return span


Span = Annotated[timedelta, BeforeValidator(to_span), AfterValidator(positive)]


def is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`; IPv6 hosts stand in brackets. Raises ValueError."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.port is None or parts.path or parts.query or parts.username:
        raise ValueError('an address is text such as "127.0.0.1:50051"')
    return parts.hostname, parts.port


def listen_address(text: str) -> str:
    split_address(text)
    return text


Address = Annotated[str, AfterValidator(listen_address)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(Section):
    """Where it listens, and under which address browsers reach it."""

    grpc_listen: Address = "127.0.0.1:50051"
    http_listen: Address = "127.0.0.1:8080"
    public_url: str
    reflection: bool | None = None
    drain_timeout: Span = timedelta(seconds=30)
    metrics_listen: Address | None = None

    @property
    def serves_reflection(self) -> bool:
        """On by default for loopback only."""
        on_loopback = is_loopback(split_address(self.grpc_listen)[0])
        return on_loopback if self.reflection is None else self.reflection


class Log(Section):
    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Database(Section):
    url: str

    @property
    def path(self) -> Path | None:
        """The SQLite file; None where it is PostgreSQL."""
        return Path(self.url.removeprefix("sqlite:///")) if self.url.startswith("sqlite:///") else None

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return re.sub(r"//([^:/@]*):[^@]*@", r"//\1:<redacted>@", self.url)


class Keys(Section):
    file: Path


class Refresh(Section):
    min_interval: Span = timedelta(seconds=60)
    lease: Span = timedelta(seconds=60)
    identity_interval: Span | None = None
    journal: Path | None = None


class Platform(Section):
    """Our registration at one platform, and the endpoints that differ from its definition."""

    client_id: str = Field(min_length=1)
    client_secret_file: Path | None = None
    client_secret_env: str | None = None
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    revocation_endpoint: str | None = None
    identity_endpoint: str | None = None
    api_base: str | None = None

    @property
    def overrides(self) -> dict[str, str]:
        found = {name: getattr(self, name) for name in ENDPOINTS}
        return {name: url for name, url in found.items() if url is not None}

    @property
    def sandboxed(self) -> bool:
        """Whether it is played on this machine, over plain http."""
        return any(urlsplit(url).scheme == "http" for url in self.overrides.values())

    def client_secret(self) -> Secret:
        """Raises OSError, KeyError."""
        if self.client_secret_env is not None:
            return Secret(os.environ[self.client_secret_env])
        assert self.client_secret_file is not None  # noqa: S101 (checked when the settings were read)
        return Secret(self.client_secret_file.read_text().strip())


class CallerSettings(Section):
    """An internal service: its keys, and what it may do and see."""

    api_keys_sha256: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = Field(min_length=1)
    permissions: tuple[Permission, ...] = ()
    profiles: tuple[str, ...] = ("",)
    platforms: tuple[str, ...] | None = None
    return_urls: tuple[str, ...] = ()
    redirect_uris: tuple[str, ...] = ()
    allow_shim_completion: bool = False

    def to_caller(self, name: str) -> Caller:
        return Caller(
            name=name,
            permissions=frozenset(self.permissions),
            profiles=self.profiles,
            platforms=None if self.platforms is None else frozenset(self.platforms),
            return_urls=frozenset(self.return_urls),
            redirect_uris=frozenset(self.redirect_uris),
            allow_shim_completion=self.allow_shim_completion,
        )


class Settings(BaseSettings):
    """All settings, checked one by one and against each other."""

    model_config = SettingsConfigDict(
        env_prefix="ACCOUNTS_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    server: Server
    log: Log = Log()
    database: Database
    keys: Keys
    refresh: Refresh = Refresh()
    platforms: dict[str, Platform]
    callers: dict[str, CallerSettings]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    @property
    def journal_folder(self) -> Path:
        """Where refreshed token sets wait that the database did not take; beside the database by default."""
        if self.refresh.journal is not None:
            return self.refresh.journal
        assert self.database.path is not None  # noqa: S101 (checked when the settings were read)
        return self.database.path.with_name(self.database.path.name + ".journal")

    def callers_by_key(self) -> dict[bytes, Caller]:
        """Callers by the SHA-256 of each of their API keys."""
        return {
            bytes.fromhex(digest): settings.to_caller(name)
            for name, settings in self.callers.items()
            for digest in settings.api_keys_sha256
        }


def load(file: Path, known_platforms: tuple[str, ...]) -> Settings:
    """Reads and checks the settings. Raises ConfigError with every problem found.

    Relative paths in the file are relative to its folder.
    """
    try:
        written = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError([f"{file}: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: not TOML: {error}"]) from None
    problems = list(unknown_variables())
    try:
        settings = Settings(**written)
    except ValidationError as error:
        raise ConfigError(problems + [describe(each) for each in error.errors()]) from None
    settings = with_absolute_paths(settings, file.parent.absolute())
    problems += check(settings, known_platforms)
    if problems:
        raise ConfigError(problems)
    return settings


def describe(error: Any) -> str:
    """One problem as a line; the value is not shown, since it may be a secret in the wrong place."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if error["type"] == "missing":
        return f"{key}: required"
    return f"{key}: {error['msg'].removeprefix('Value error, ')}"


def unknown_variables() -> Iterator[str]:
    """Environment variables that look like settings and are none."""
    for name in os.environ:
        if name.startswith("ACCOUNTS_") and name != "ACCOUNTS_CONFIG":
            section = name.removeprefix("ACCOUNTS_").split("__")[0].lower()
            if section not in Settings.model_fields or "__" not in name:
                yield f"{name}: no such setting (ACCOUNTS_SECTION__KEY)"


def with_absolute_paths(settings: Settings, folder: Path) -> Settings:
    """The same settings with each file as an absolute path."""
    database = settings.database
    if database.path is not None:
        database = Database(url=f"sqlite:///{folder / database.path}")
    journal = settings.refresh.journal
    platforms = {
        name: platform.model_copy(update={"client_secret_file": folder / platform.client_secret_file})
        if platform.client_secret_file
        else platform
        for name, platform in settings.platforms.items()
    }
    return settings.model_copy(
        update={
            "database": database,
            "keys": Keys(file=folder / settings.keys.file),
            "platforms": platforms,
            "refresh": settings.refresh.model_copy(update={"journal": folder / journal if journal else None}),
        }
    )


def check(settings: Settings, known_platforms: tuple[str, ...]) -> Iterator[str]:
    """What the settings must be to each other."""
    yield from check_server(settings)
    yield from check_database(settings)
    if not settings.platforms:
        yield "platforms: at least one is needed: [platforms.twitter]"
    local = is_loopback(urlsplit(settings.server.public_url).hostname)
    for name, platform in settings.platforms.items():
        if name not in known_platforms:
            yield f"platforms.{name}: no such platform; known: {', '.join(known_platforms)}"
        yield from check_platform(f"platforms.{name}", platform, local)
    if not settings.callers:
        yield "callers: no caller, no start: add [callers.<name>] with api_keys_sha256"
    owners: dict[str, str] = {}
    for name, caller in settings.callers.items():
        yield from check_caller(f"callers.{name}", caller, known_platforms)
        for digest in caller.api_keys_sha256:
            if owners.setdefault(digest, name) != name:
                yield f"callers.{name}.api_keys_sha256: callers.{owners[digest]} has the same key"


def check_database(settings: Settings) -> Iterator[str]:
    if settings.database.path is not None:
        return
    parts = urlsplit(settings.database.url)
    if parts.scheme != "postgresql" or not parts.path.strip("/"):
        yield 'database.url: "sqlite:///path/to/accounts.db" or "postgresql://user@host/database"'
    elif settings.refresh.journal is None:
        yield "refresh.journal: required with PostgreSQL: a folder on this machine, for this process alone"


def check_server(settings: Settings) -> Iterator[str]:
    public = urlsplit(settings.server.public_url)
    if public.scheme not in ("http", "https") or not public.hostname or public.path or public.query or public.fragment:
        yield 'server.public_url: scheme, host and port only, such as "https://accounts.example.com"'
    elif public.scheme == "http" and not is_loopback(public.hostname):
        yield "server.public_url: plain http is for loopback only; use https"
    if not is_loopback(split_address(settings.server.grpc_listen)[0]):
        yield (
            "server.grpc_listen: beyond loopback the port needs TLS, which this version does not have; "
            "listen on loopback, behind a proxy that ends TLS"
        )


def check_platform(key: str, platform: Platform, local: bool) -> Iterator[str]:
    if (platform.client_secret_file is None) == (platform.client_secret_env is None):
        yield f"{key}: give either client_secret_file or client_secret_env"
    elif platform.client_secret_file is not None:
        yield from check_secret_file(f"{key}.client_secret_file", platform.client_secret_file)
    elif not os.environ.get(str(platform.client_secret_env)):
        yield f"{key}.client_secret_env: the environment variable {platform.client_secret_env} is not set"
    for name, url in platform.overrides.items():
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.fragment:
            yield f"{key}.{name}: an absolute https URL"
        elif parts.scheme == "http" and not (local and is_loopback(parts.hostname)):
            yield f"{key}.{name}: plain http is for loopback only, and only while server.public_url is loopback too"


def check_secret_file(key: str, path: Path) -> Iterator[str]:
    try:
        mode = path.stat().st_mode
        path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        yield f"{key}: {path} cannot be read: {getattr(error, 'strerror', None) or 'not text'}"
        return
    if stat.S_IMODE(mode) & 0o077:
        yield f"{key}: {path} is open to other users; run: chmod 600 {path}"


def check_caller(key: str, caller: CallerSettings, known_platforms: tuple[str, ...]) -> Iterator[str]:
    for platform in caller.platforms or ():
        if platform not in known_platforms:
            yield f"{key}.platforms: no such platform: {platform}; known: {', '.join(known_platforms)}"
    for field in ("return_urls", "redirect_uris"):
        for url in getattr(caller, field):
            parts = urlsplit(url)
            plain = parts.scheme == "http" and is_loopback(parts.hostname)
            odd = parts.fragment or parts.username or not url.isascii() or not url.isprintable() or " " in url
            if not parts.hostname or odd or not (parts.scheme == "https" or plain):
                yield f"{key}.{field}: {url!r} must be an absolute https URL (http for loopback) without fragment"


def to_text(settings: Settings) -> str:
    """The effective settings, one key a line; secrets are files and variables, which are named, not read."""
    lines: list[str] = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else name, inner)
        elif value is not None:
            lines.append(f"{prefix} = {json.dumps(as_written(value))}")

    shown = {"database": {"url": settings.database.shown}, "refresh": effective_refresh(settings)}
    walk("", settings.model_dump() | shown)
    return "\n".join(lines)


def effective_refresh(settings: Settings) -> dict[str, Any]:
    return settings.refresh.model_dump() | {"journal": settings.journal_folder}


def as_written(value: Any) -> Any:
    """A setting as it would stand in the file."""
    if isinstance(value, timedelta):
        seconds = int(value.total_seconds())
        unit = next(unit for unit in reversed(SECONDS) if seconds % SECONDS[unit] == 0)
        return f"{seconds // SECONDS[unit]}{unit}"
    if isinstance(value, tuple):
        return [as_written(each) for each in value]
    return str(value) if isinstance(value, Path) else value
