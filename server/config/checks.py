"""What the settings must be to each other and to the machine they are read on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import ValidationError

from server.accounts.callers import Permission
from server.accounts.timing import drain_time
from server.config.files import check_secret_file, check_tls
from server.config.settings import ENDPOINTS, CallerSettings, Database, Platform, Refresh, Section, Server
from server.config.values import ALL, is_loopback, is_safe, split_address, split_url

S = TypeVar("S", bound=Section)

CALLER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""As it stands in events; those of operators hold a space."""


def sound(kind: type[S], data: Any) -> S | None:
    """A section, if it is right by itself; what is wrong with it is told elsewhere."""
    try:
        return kind.model_validate(data)
    except ValidationError:
        return None


def sound_each(kind: type[S], data: Any) -> dict[str, S]:
    found = {name: sound(kind, each) for name, each in data.items()} if isinstance(data, dict) else {}
    return {name: section for name, section in found.items() if section is not None}


def check(data: dict[str, Any], folder: Path, known_platforms: tuple[str, ...]) -> Iterator[str]:
    """What the settings must be to each other and to the machine, as far as each section is right by itself."""
    server = sound(Server, data.get("server"))
    public = split_url(server.public_url) if server is not None else None
    if server is not None:
        yield from check_server(server, public)
        yield from check_tls(server.tls, folder) if server.tls is not None else ()
    refresh = sound(Refresh, data.get("refresh", {}))
    yield from check_database(sound(Database, data.get("database")), refresh)
    if server is not None and refresh is not None and server.drain_timeout < (least := drain_time(refresh.lease)):
        yield (
            f"server.drain_timeout: shorter than a connect or a refresh may take ({least.total_seconds():g} s), so a "
            "stop could cut off one whose tokens are then lost"
        )
    if not data.get("platforms"):
        yield "platforms: at least one is needed: [platforms.twitter]"
    for name, platform in sound_each(Platform, data.get("platforms")).items():
        if name not in known_platforms:
            yield f"platforms.{name}: no such platform; known: {', '.join(known_platforms)}"
        yield from check_secret(f"platforms.{name}", platform, folder)
        yield from check_endpoints(f"platforms.{name}", platform, local=public is None or is_loopback(public.hostname))
    if not data.get("callers"):
        yield "callers: no caller, no start: add [callers.<name>] with api_keys_sha256"
    callers = sound_each(CallerSettings, data.get("callers"))
    yield from check_credentials(callers, certificates=server is None or server.asks_for_certificates)
    for name, caller in callers.items():
        yield from check_caller(name, caller, known_platforms)


def check_server(server: Server, public: SplitResult | None) -> Iterator[str]:
    if public is None or server.public_url != f"{public.scheme}://{public.netloc}":
        yield 'server.public_url: scheme, host and port only, such as "https://accounts.example.com"'
    elif not is_safe(public):
        yield "server.public_url: plain http is for loopback only; use https"
    if server.tls is None and not is_loopback(split_address(server.grpc_listen)[0]):
        yield "server.grpc_listen: beyond loopback the port needs TLS: add [server.tls] with cert_file and key_file"


def check_database(database: Database | None, refresh: Refresh | None) -> Iterator[str]:
    if database is None or (database.path is not None and database.path.name):
        return
    try:
        parts = urlsplit(database.url)
        _ = parts.port  # raises for one that is none
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != "postgresql" or not parts.path.strip("/"):
        yield 'database.url: "sqlite:///path/to/accounts.db" or "postgresql://user@host/database"'
    elif "options" in parse_qs(parts.query):
        yield "database.url: the parameter options is the service's own (time limits, time zone)"
    elif refresh is not None and refresh.journal is None:
        yield "refresh.journal: required with PostgreSQL: a folder on this machine, for this process alone"


def check_secret(key: str, platform: Platform, folder: Path) -> Iterator[str]:
    if (platform.client_secret_file is None) == (platform.client_secret_env is None):
        yield f"{key}: give either client_secret_file or client_secret_env"
    elif platform.client_secret_file is not None:
        yield from check_secret_file(f"{key}.client_secret_file", folder / platform.client_secret_file)
    elif not os.environ.get(str(platform.client_secret_env)):
        # The name is not shown: it may be the secret itself, in the wrong place.
        yield f"{key}.client_secret_env: the environment variable of that name is not set"


def check_endpoints(key: str, platform: Platform, *, local: bool) -> Iterator[str]:
    on_this_machine = False
    for name, url in platform.overrides.items():
        parts = split_url(url)
        if parts is None:
            yield f"{key}.{name}: an absolute https URL"
        elif parts.scheme == "http" and not (local and is_safe(parts)):
            yield f"{key}.{name}: plain http is for loopback only, and only while server.public_url is loopback too"
        elif parts.scheme == "http":
            on_this_machine = True
        if name == "api_base" and parts is not None and url.rstrip("/") != f"{parts.scheme}://{parts.netloc}":
            yield f"{key}.api_base: scheme, host and port only"
    missing = [name for name in ENDPOINTS if name not in platform.overrides]
    if on_this_machine and missing:
        # Half a sandbox would send a pretend code, or a real token, to the other side.
        yield f"{key}: a platform on this machine needs all its endpoints here; missing: {', '.join(missing)}"


def check_credentials(callers: dict[str, CallerSettings], *, certificates: bool) -> Iterator[str]:
    """Each caller can prove itself, and none as another."""
    owners: dict[str, str] = {}
    for name, caller in callers.items():
        key = f"callers.{name}"
        if not caller.api_keys_sha256 and not caller.certificate_sans:
            yield f"{key}.api_keys_sha256: required, unless certificate_sans are given: nobody could be this caller"
        if caller.certificate_sans and not certificates:
            yield f"{key}.certificate_sans: nobody is asked for a certificate without server.tls.client_ca_file"
        for setting, what in (("api_keys_sha256", "key"), ("certificate_sans", "name")):
            for credential in getattr(caller, setting):
                if owners.setdefault(credential, name) != name:
                    yield f"{key}.{setting}: callers.{owners[credential]} has the same {what}"


def check_caller(name: str, caller: CallerSettings, known_platforms: tuple[str, ...]) -> Iterator[str]:
    key = f"callers.{name}"
    if not CALLER_NAME.fullmatch(name):
        yield f"{key}: a caller's name is 1 to 64 characters of [A-Za-z0-9_-]"
    for platform in caller.platforms:
        if platform not in (ALL, *known_platforms):
            yield f"{key}.platforms: no such platform: {platform}; known: {', '.join(known_platforms)}"
    for platform in caller.routes_by_platform():
        if platform not in known_platforms:
            yield f"{key}.routes: no such platform: {platform}; known: {', '.join(known_platforms)}"
        elif not {ALL, platform} & set(caller.platforms):
            yield f"{key}.routes: {platform} is none of the caller's platforms"
    if Permission.ACT in caller.permissions and not caller.routes:
        yield f"{key}.routes: required with the permission act: what is not named there is refused"
    if caller.routes and Permission.ACT not in caller.permissions:
        yield f"{key}.routes: of no use without the permission act"
    for field in ("return_urls", "redirect_uris"):
        for url in getattr(caller, field):
            parts = split_url(url)
            if parts is None or not is_safe(parts):
                yield f"{key}.{field}: {url!r} must be an absolute https URL (http for loopback) without fragment"
