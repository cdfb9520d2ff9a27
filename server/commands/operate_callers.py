"""What the operators' commands about callers do: each returns the lines to print."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence

from server.accounts.callers import Permission
from server.accounts.model import Block
from server.commands.operate import columns, operator, shown
from server.config import ALL, CallerSettings, ConfigError, Settings, caller_problems

BESIDES = {Permission.LIST_ALL: "ListAccounts and WatchAccounts of all profiles that it sees at once"}
"""What permissions are for that no method needs as such."""


def new_key() -> tuple[str, str]:
    """A key of 256 random bits, and its SHA-256 as the settings hold it."""
    key = secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


def new_section(name: str, digest: str, rights: dict[str, Sequence[str]]) -> list[str]:
    """The lines that let in a new caller with this key, wherever they stand. `rights` are its settings.

    They begin with an empty one: the file that they are added to may end in the middle of a line. Raises ConfigError,
    also for rights with which the server would not start.
    """
    from server.parts import DEFINITIONS, routes_without_scopes  # noqa: PLC0415 (imports the whole server)

    given = {"api_keys_sha256": [digest], **{setting: list(values) for setting, values in rights.items()}}
    if not given["routes"]:  # required with the permission act alone, and refused without it
        del given["routes"]
    problems = caller_problems(name, given, tuple(DEFINITIONS))
    if problems := problems or [*routes_without_scopes({name: CallerSettings.model_validate(given)})]:
        raise ConfigError(problems)
    return ["", f"[callers.{name}]", *(f"{setting} = {json.dumps(values)}" for setting, values in given.items())]


def with_another_key(name: str, present: CallerSettings, digest: str, rights: dict[str, Sequence[str]]) -> list[str]:
    """What an operator has to do so that a caller of the configuration has one more key. Raises ConfigError.

    It is told in words: a line that was added to the end of the file would give the key to another caller.
    """
    if any(rights.values()):
        raise ConfigError([f"callers.{name} is there already: it gets another key; change its rights in the file"])
    return [
        f"{name} is a caller already, so nothing is printed that could be added to a file. In its section",
        f"[callers.{name}] put this line in the place of the present api_keys_sha256; the old keys go when nobody uses",
        "them any more:",
        f"api_keys_sha256 = {json.dumps([*present.api_keys_sha256, digest])}",
    ]


async def callers(settings: Settings) -> list[str]:
    """A line for each caller of the configuration, and for each other that is blocked."""
    blocks = await blocked(settings)
    rows = [("CALLER", "PERMISSIONS", "PROFILES", "PLATFORMS", "STATE")]
    for name, caller in sorted(settings.callers.items()):
        permissions = " ".join(caller.permissions) or "none"
        rows.append((name, permissions, profiles(caller), platforms(caller), state(blocks.get(name))))
    strangers = sorted(blocks.keys() - settings.callers.keys())
    rows += [(name, "not in this configuration", "", "", state(blocks[name])) for name in strangers]
    return list(columns(rows))


async def check(settings: Settings, name: str) -> list[str]:
    """In words: how a caller proves itself, what it may do and see, and how much. Raises ConfigError."""
    caller = caller_of(settings, name)
    block = (await blocked(settings)).get(name)
    return [
        f"{name} is {state(block)}." + (" Nothing below holds until it is unblocked." if block is not None else ""),
        f"It proves itself with {' or '.join(proofs(caller))}.",
        *powers(caller),
        f"It sees {profiles(caller)} profiles, on {platforms(caller)} platforms.",
        *(f"On accounts' behalf it may send {route}." for route in caller.routes),
        *endings(caller),
        f"In each process it may make {limits(caller)}.",
    ]


async def set_block(settings: Settings, name: str, reason: str) -> None:
    """Raises ConfigError for a caller that is not in the configuration, unless it is to be unblocked."""
    from server.parts import store_without_keys  # noqa: PLC0415 (imports the whole server)

    if reason:
        caller_of(settings, name)
    async with store_without_keys(settings) as store:
        if not reason and name not in {block.caller for block in await store.blocks()}:
            caller_of(settings, name)
        await store.set_block(name, reason=reason, operator=operator())


async def blocked(settings: Settings) -> dict[str, Block]:
    from server.parts import store_without_keys  # noqa: PLC0415

    async with store_without_keys(settings) as store:
        return {block.caller: block for block in await store.blocks() if block.reason}


def caller_of(settings: Settings, name: str) -> CallerSettings:
    if name not in settings.callers:
        raise ConfigError(
            [f"{name} is no caller of this configuration; callers: {', '.join(sorted(settings.callers))}"]
        )
    return settings.callers[name]


def state(block: Block | None) -> str:
    return "let in" if block is None else f"blocked by {block.operator} at {shown(block.time)}: {block.reason}"


def proofs(caller: CallerSettings) -> Iterator[str]:
    for digest in caller.api_keys_sha256:
        yield f"the API key whose SHA-256 begins with {digest[:8]}"
    for san in caller.certificate_sans:
        yield f"a certificate that names {san}"


def powers(caller: CallerSettings) -> Iterator[str]:
    """The permissions it has and lacks, each with what needs it."""
    from server.rpc.policy import LINES  # noqa: PLC0415

    for permission in Permission:
        methods = [method.rpartition(".")[2] for method, line in LINES.items() if line.need is permission]
        may = "may" if permission in caller.permissions else "may not"
        yield f"It {may} {permission}: {', '.join(methods) or BESIDES[permission]}."


def profiles(caller: CallerSettings) -> str:
    if ALL in caller.profiles:
        return "all"
    return " ".join(f"{prefix}…" for prefix in caller.profiles) or "no"


def platforms(caller: CallerSettings) -> str:
    return "all" if ALL in caller.platforms else " ".join(caller.platforms) or "no"


def endings(caller: CallerSettings) -> Iterator[str]:
    yield f"Of its connects {caller.pending_connects:,} may be begun and not ended at a time."
    for url in caller.return_urls:
        yield f"Its connects may end at {url}, with a completion code."
    for url in caller.redirect_uris:
        yield f"Its connects may end at {url}, with the platform's code."
    if caller.allow_shim_completion:
        yield "Its connects may be completed by the callback alone: whoever opens the link decides whose account it is."


def limits(caller: CallerSettings) -> str:
    calls = "as many calls as it likes" if caller.rate is None else f"{caller.rate:g} calls a second"
    most = caller.accounts_a_minute
    accounts = "of as many accounts as it likes" if most is None else f"of {most:,} accounts a minute"
    revokes = f"{caller.revokes_a_minute:,} revokes a minute"
    return f"{calls}, {accounts}, {revokes}, and watch {caller.watchers:,} times at once"
