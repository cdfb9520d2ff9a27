"""The settings as typed sections: their keys, defaults and what each must be by itself."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from server.accounts.callers import Caller, Limits, Permission
from server.accounts.calls import MOST_IN_FLIGHT
from server.accounts.model import Secret
from server.accounts.routes import Route
from server.config.values import (
    ALL,
    Address,
    AddressOrOff,
    KeyHash,
    ProfilePrefix,
    RouteLine,
    San,
    Span,
    Switch,
    is_loopback,
    split_address,
    split_route,
)

PASSWORDS = re.compile(r"(//[^:/?#@]*:)[^/?#]*(?=@)|([?&](?:ssl)?password=)[^&#]*")
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "revocation_endpoint", "identity_endpoint", "api_base")
SANDBOX_IDENTITY_INTERVAL = timedelta(minutes=1)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(Section):
    """What the gRPC port proves itself with, and whose certificates it asks of callers."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


class Server(Section):
    """Where it listens, and under which address browsers reach it."""

    grpc_listen: Address = "127.0.0.1:50051"
    http_listen: Address = "127.0.0.1:8080"
    public_url: str
    reflection: Switch | None = None
    drain_timeout: Span = timedelta(seconds=30)
    metrics_listen: AddressOrOff = None
    tls: Tls | None = None

    @property
    def asks_for_certificates(self) -> bool:
        return self.tls is not None and self.tls.client_ca_file is not None

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
        return PASSWORDS.sub(r"\1\2<redacted>", self.url)


class Keys(Section):
    file: Path


class Refresh(Section):
    min_interval: Span = timedelta(seconds=60)
    lease: Span = timedelta(seconds=60)
    identity_interval: Span | None = None
    journal: Path | None = None


class Retention(Section):
    """How long is kept what is of no more use to anybody but those who look back."""

    revoked_accounts: Span = timedelta(days=90)
    audit: Span = timedelta(days=400)


class Watch(Section):
    """How accounts are watched."""

    # Clients hold accounts of which they were told nothing for two minutes to be unknown.
    heartbeat: Span = Field(default=timedelta(seconds=30), le=timedelta(minutes=1))
    expiring_soon: Span = timedelta(days=7)
    watchers: int = Field(default=5_000, ge=1, le=100_000)


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
    refresh_rate: float | None = Field(default=None, gt=0, le=100_000)
    calls_in_flight: int = Field(default=MOST_IN_FLIGHT, ge=1, le=100_000)

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
    """An internal service: its keys, and what it may do and see.

    What it may is required: a line that was lost must not mean everything.
    """

    api_keys_sha256: tuple[KeyHash, ...] = ()
    certificate_sans: tuple[San, ...] = ()
    permissions: tuple[Permission, ...]
    profiles: tuple[ProfilePrefix, ...]
    platforms: tuple[str, ...]
    return_urls: tuple[str, ...] = ()
    redirect_uris: tuple[str, ...] = ()
    allow_shim_completion: Switch = False
    routes: tuple[RouteLine, ...] = ()
    rate: float | None = Field(default=None, gt=0, le=1_000_000, allow_inf_nan=False)
    accounts_a_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    revokes_a_minute: int = Field(default=1_000, ge=1, le=1_000_000)
    pending_connects: int = Field(default=10_000, ge=1, le=1_000_000)
    watchers: int = Field(default=1_000, ge=1, le=100_000)

    def routes_by_platform(self) -> dict[str, tuple[Route, ...]]:
        found: dict[str, tuple[Route, ...]] = {}
        for platform, route in map(split_route, self.routes):
            found[platform] = (*found.get(platform, ()), route)
        return found

    def to_caller(self, name: str) -> Caller:
        return Caller(
            name=name,
            permissions=frozenset(self.permissions),
            profiles=tuple("" if prefix == ALL else prefix for prefix in self.profiles),
            platforms=None if ALL in self.platforms else frozenset(self.platforms),
            return_urls=frozenset(self.return_urls),
            redirect_uris=frozenset(self.redirect_uris),
            allow_shim_completion=self.allow_shim_completion,
            routes=self.routes_by_platform(),
            limits=Limits(
                self.rate, self.accounts_a_minute, self.revokes_a_minute, self.pending_connects, self.watchers
            ),
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
    retention: Retention = Retention()
    watch: Watch = Watch()
    platforms: dict[str, Platform] = {}
    callers: dict[str, CallerSettings] = {}

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

    def callers_by_san(self) -> dict[str, Caller]:
        """Callers by each of the names that their certificates may have."""
        return {
            san: settings.to_caller(name)
            for name, settings in self.callers.items()
            for san in settings.certificate_sans
        }
