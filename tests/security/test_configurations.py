"""A slip in the configuration opens no hole (row I4): it is refused, or nobody may do more than before.

A slip is a misspelt or misplaced key or section, a line that was left out or slipped into another caller's section, or
a value of another kind. Another value of the right kind is another policy, and nobody can tell it from the one that was
meant. Limits and reflection have defaults, and `config check` shows what they come to.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server import config
from server.accounts.callers import Caller
from tests.authority import Authority
from tests.config.test_config import GOOD, KEY, toml

SLIPS = 500
TREE: dict[str, Any] = {
    **GOOD,
    "server": {
        "public_url": "https://accounts.example.com",
        "grpc_listen": "127.0.0.1:50051",
        "reflection": False,
        "tls": {"cert_file": "server.pem", "key_file": "server.key", "client_ca_file": "ca.pem"},
    },
    "callers": {
        "web": {
            "api_keys_sha256": [KEY],
            "certificate_sans": ["spiffe://test/web"],
            "permissions": ["read"],
            "profiles": ["acme/"],
            "platforms": ["twitter"],
            "return_urls": ["https://app.example.com/connected"],
            "allow_shim_completion": False,
            "rate": 20,
            "accounts_a_minute": 100,
            "revokes_a_minute": 10,
            "pending_connects": 20,
        },
        "none": {
            "api_keys_sha256": ["b" * 64],
            "permissions": [],
            "profiles": [],
            "platforms": [],
            "rate": 1,
            "accounts_a_minute": 1,
            "revokes_a_minute": 1,
            "pending_connects": 1,
        },
    },
}

Place = tuple[dict[str, Any], str]


def places(tree: dict[str, Any]) -> Iterator[Place]:
    for name, value in tree.items():
        yield tree, name
        if isinstance(value, dict):
            yield from places(value)


def written(section: dict[str, Any], path: str = "") -> str:
    lines = [f"{json.dumps(name)} = {toml(value)}" for name, value in section.items() if not isinstance(value, dict)]
    for name, value in section.items():
        if isinstance(value, dict):
            inner = f"{path}.{json.dumps(name)}".lstrip(".")
            lines += [f"[{inner}]", written(value, inner)]
    return "\n".join(lines)


def load(folder: Path, tree: dict[str, Any]) -> config.Settings:
    (folder / "config.toml").write_text(written(tree))
    return config.load(folder / "config.toml", ("twitter",))


def misspell(place: Place, rng: random.Random, _: list[Place]) -> None:
    section, name = place
    at = rng.randrange(len(name))
    other = rng.choice([name[:at] + name[at + 1 :], name[:at] + name[at] + name[at:], name.upper(), name + "s"])
    section[other.replace("_", "-") if rng.random() < 0.2 else other or "x"] = section.pop(name)


def misplace(place: Place, rng: random.Random, everywhere: list[Place]) -> None:
    section, name = place
    other = rng.choice([each for each, _ in everywhere if "api_keys_sha256" not in each])
    if not isinstance(section[name], dict):
        other[name] = section.pop(name)


def another_kind(place: Place, rng: random.Random, _: list[Place]) -> None:
    section, name = place
    value = section[name]
    first = value[0] if isinstance(value, list) and value else [value]
    others = [first, str(value), "", "*", 0, -1, 1, True, {}, []]
    section[name] = rng.choice([other for other in others if type(other) is not type(value)])


def leave_out(place: Place, _: random.Random, __: list[Place]) -> None:
    section, name = place
    if name not in (*LIMITS, "reflection"):
        del section[name]


def move_to_another_caller(place: Place, rng: random.Random, everywhere: list[Place]) -> None:
    """A line that its new section has already makes the file no TOML, so it is not tried."""
    section, name = place
    other = rng.choice([body[name] for body, name in everywhere if name in ("web", "none")])
    if "permissions" in section and other is not section and name not in (*other, *LIMITS, *OF_NO_USE):
        other[name] = section.pop(name)


LIMITS = ("rate", "accounts_a_minute", "revokes_a_minute", "pending_connects")
OF_NO_USE = ("return_urls", "allow_shim_completion")
"""To a caller that may not connect; whose own permissions cannot be moved without their loss being noticed."""
MISTAKES: tuple[Callable[[Place, random.Random, list[Place]], None], ...] = (
    misspell, misplace, another_kind, leave_out, move_to_another_caller,
)  # fmt: skip


def no_wider(caller: Caller, before: Caller) -> bool:
    """Whether everything the caller may do and see it might before; limits that are gone are wider."""
    mine, its = caller.limits, before.limits
    return (
        caller.permissions <= before.permissions
        and all(prefix.startswith(before.profiles) for prefix in caller.profiles)
        and (before.platforms is None or (caller.platforms is not None and caller.platforms <= before.platforms))
        and caller.return_urls <= before.return_urls
        and caller.redirect_uris <= before.redirect_uris
        and caller.allow_shim_completion <= before.allow_shim_completion
        and all(
            old is None or (new is not None and new <= old)
            for new, old in (
                (mine.rate, its.rate),
                (mine.accounts_a_minute, its.accounts_a_minute),
                (mine.revokes_a_minute, its.revokes_a_minute),
                (mine.pending_connects, its.pending_connects),
            )
        )
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("client-secret")
    (tmp_path / "secret").chmod(0o600)
    Authority().server_files(tmp_path, clients_of=Authority())
    return tmp_path


def test_a_slip_is_refused_or_nobody_may_do_more_than_before(folder: Path) -> None:
    before = load(folder, TREE)
    by_key, by_san = before.callers_by_key(), before.callers_by_san()
    refused = 0
    for seed in range(SLIPS):
        rng, tree = random.Random(seed), copy.deepcopy(TREE)
        everywhere = list(places(tree))
        rng.choice(MISTAKES)(rng.choice(everywhere), rng, everywhere)
        if tree == TREE:
            continue
        try:
            after = load(folder, tree)
        except config.ConfigError:
            refused += 1
            continue
        for told, known in ((after.callers_by_key(), by_key), (after.callers_by_san(), by_san)):
            assert told.keys() <= known.keys(), (seed, tree)
            assert all(no_wider(caller, known[credential]) for credential, caller in told.items()), (seed, tree)
        assert after.server.asks_for_certificates, (seed, tree)
        assert not after.server.serves_reflection and config.split_address(after.server.grpc_listen)[0] == "127.0.0.1"
    assert refused > SLIPS / 2, "most slips are noticed at once"
