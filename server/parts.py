"""The parts that the server and the commands both put together: settings, database, store, platforms."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import uuid_utils

from server import config
from server.accounts.routes import SAFE
from server.accounts.timing import token_timeout
from server.config import CallerSettings, Settings
from server.platforms.catalog import PLATFORMS
from server.platforms.http import Sender
from server.platforms.platform import RegisteredPlatform
from server.platforms.platform_api import PlatformApi
from server.platforms.registration import Registration
from server.storage.clock import Clock
from server.storage.engine import DatabaseUnusable, Engine, SqliteEngine
from server.storage.keyring import KeyRing
from server.storage.migrate import check_keys, check_not_retired, check_schema
from server.storage.postgres import PostgresEngine
from server.storage.store import Store
from server.storage.vault import NoVault, Vault

DEFINITIONS = {definition.id: definition for definition in PLATFORMS}


def load_settings(file: Path) -> Settings:
    """Raises ConfigError."""
    settings = config.load(file, tuple(DEFINITIONS))
    if problems := list(routes_without_scopes(settings.callers)):
        raise config.ConfigError(problems)
    return settings


def routes_without_scopes(callers: Mapping[str, CallerSettings]) -> Iterator[str]:
    """Routes of callers that change something and that no definition knows: each call of them would be refused."""
    for name, caller in callers.items():
        for platform, routes in caller.routes_by_platform().items():
            known = [route for route, _ in DEFINITIONS[platform].api.scopes]
            for route in routes:
                if route.method not in SAFE and not any(map(route.meets, known)):
                    text = f"{platform} {route.method} {route.template}"
                    yield f"callers.{name}.routes: {text} is not in its definition, which says the scopes"


def open_engine(settings: Settings, *, create: bool = False, alone: bool = True) -> Engine:
    """The database that the settings name; not `alone` for a command beside a server. Raises DatabaseUnusable."""
    path = settings.database.path
    if path is None:
        return PostgresEngine(settings.database.url)
    if not path.exists() and not create:
        raise DatabaseUnusable(f"there is no database {path}; run: python -m server --config FILE migrate")
    return SqliteEngine(path, alone=alone)


def new_id() -> str:
    """UUIDv7 text: ids made later sort later."""
    return str(uuid_utils.uuid7())


def key_user(settings: Settings) -> str:
    """Names a process in the database in the same way after a restart: a journal folder belongs to one process."""
    return f"{socket.gethostname()}:{settings.journal_folder}"


def registered_platforms(settings: Settings, sender: Sender, clock: Clock) -> dict[str, RegisteredPlatform]:
    """The platforms that the settings name, each with its registration."""
    return {name: registered_platform(settings, name, sender, clock) for name in settings.platforms}


def platform_apis(settings: Settings, now: Callable[[], datetime]) -> dict[str, PlatformApi]:
    """What may be called on accounts' behalf, of each platform that the settings name."""
    return {
        name: PlatformApi(DEFINITIONS[name], registration(platform), now, connections=platform.calls_in_flight)
        for name, platform in settings.platforms.items()
    }


def registration(registered: config.Platform) -> Registration:
    return Registration(registered.client_id, registered.client_secret(), registered.overrides)


def registered_platform(settings: Settings, name: str, sender: Sender, clock: Clock) -> RegisteredPlatform:
    registered = settings.platforms[name]
    definition = DEFINITIONS[name]
    interval = settings.refresh.identity_interval
    if interval is None and registered.sandboxed:
        interval = config.SANDBOX_IDENTITY_INTERVAL
    if interval is not None:
        definition = dataclasses.replace(definition, identity_interval=interval)
    if registered.sandboxed:
        # The settings allow plain http for loopback alone; oauthlib has no finer switch than this one.
        os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    limit = token_timeout(settings.refresh.lease)
    return RegisteredPlatform(definition, registration(registered), sender, clock, token_timeout=limit)


@asynccontextmanager
async def store_beside(settings: Settings) -> AsyncIterator[Store]:
    """The store for a command that works beside a running server, or without one.

    Raises KeyRingError, SchemaMismatch, DatabaseUnusable.
    """
    async with opened_store(settings, alone=False) as store:
        yield store


@asynccontextmanager
async def store_without_keys(settings: Settings) -> AsyncIterator[Store]:
    """The store for a command that opens nothing sealed: a kill switch must work where the key file is out of reach.

    Raises SchemaMismatch, DatabaseUnusable.
    """
    engine = open_engine(settings, alone=False)
    try:
        check_schema(engine.database)
        yield Store(engine, NoVault(), new_id)
    finally:
        engine.close()


@asynccontextmanager
async def opened_store(settings: Settings, *, alone: bool) -> AsyncIterator[Store]:
    """The store; `alone` for what must not be done beside a server that holds a SQLite file.

    Raises KeyRingError, SchemaMismatch, DatabaseUnusable.
    """
    ring = KeyRing.load(settings.keys.file)
    engine = open_engine(settings, alone=alone)
    try:
        check_schema(engine.database)
        check_keys(engine.database, ring)
        check_not_retired(engine.database, ring)
        yield Store(engine, Vault(ring), new_id)
    finally:
        engine.close()
