"""Settings: what is taken, what is refused, and how it is told."""

import copy
import hashlib
import json
import os
import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from server import config
from server.accounts.callers import Limits, Permission
from tests.authority import Authority

ROOT = Path(__file__).parents[2]
KEY = "a" * 64
EVERYWHERE = {"profiles": ["*"], "platforms": ["*"]}
NO_RIGHTS: dict[str, Any] = {"permissions": [], "profiles": [], "platforms": []}
quick = hypothesis.settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("client-secret-canary\n")
    (tmp_path / "secret").chmod(0o600)
    return tmp_path


GOOD: dict[str, Any] = {
    "server": {"public_url": "https://accounts.example.com"},
    "database": {"url": "sqlite:///accounts.db"},
    "keys": {"file": "keys.json"},
    "platforms": {"twitter": {"client_id": "id", "client_secret_file": "secret"}},
    "callers": {"web": {"api_keys_sha256": [KEY], "permissions": ["connect", "read"], **EVERYWHERE}},
}


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value)


def write(folder: Path, settings: dict[str, Any]) -> Path:
    lines: list[str] = []

    def section(path: str, body: dict[str, Any]) -> None:
        lines.append(f"[{path}]")
        lines.extend(f"{key} = {toml(value)}" for key, value in body.items() if not isinstance(value, dict))
        for key, value in body.items():
            if isinstance(value, dict):
                section(f"{path}.{key}", value)

    for name, body in settings.items():
        section(name, body)
    file = folder / "config.toml"
    file.write_text("\n".join(lines))
    return file


def load(folder: Path, settings: dict[str, Any]) -> config.Settings:
    return config.load(write(folder, settings), ("twitter",))


def changed(path: str, value: Any) -> dict[str, Any]:
    settings = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    place = settings
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    return settings


def test_the_least_settings_have_sensible_defaults(folder: Path) -> None:
    settings = load(folder, GOOD)
    assert settings.server.grpc_listen == "127.0.0.1:50051"
    assert settings.server.serves_reflection is True
    assert settings.refresh.min_interval == settings.refresh.lease == timedelta(seconds=60)
    assert settings.database.path == folder / "accounts.db"
    assert settings.keys.file == folder / "keys.json"
    assert settings.platforms["twitter"].client_secret().reveal() == "client-secret-canary"
    [caller] = settings.callers_by_key().values()
    assert caller.permissions == {Permission.CONNECT, Permission.READ}
    assert caller.sees_profile("anything") and not caller.allow_shim_completion
    assert caller.limits == Limits(None, None, revokes_a_minute=1_000, pending_connects=10_000, watchers=1_000)


def test_the_environment_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCOUNTS_LOG__LEVEL", "debug")
    monkeypatch.setenv("ACCOUNTS_REFRESH__LEASE", "5m")
    monkeypatch.setenv("ACCOUNTS_SERVER__REFLECTION", "false")
    settings = load(folder, changed("log.level", "error"))
    assert settings.server.serves_reflection is False
    assert settings.log.level == "debug"
    assert settings.refresh.lease == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("server.port", 1, "server.port: unknown key"),
        ("servers.x", 1, "servers: unknown key"),
        ("callers.web.permission", ["read"], "callers.web.permission: unknown key"),
        ("platforms.twitter.secret", "x", "platforms.twitter.secret: unknown key"),
        ("server.grpc_listen", "0.0.0.0:50051", "server.grpc_listen: beyond loopback the port needs TLS"),
        ("server.grpc_listen", "[::]:50051", "server.grpc_listen: beyond loopback"),
        ("server.grpc_listen", "50051", "server.grpc_listen: an address"),
        ("server.grpc_listen", "127.0.0.1:1#x", "server.grpc_listen: an address"),
        ("server.grpc_listen", "127.0.0.1:65536", "server.grpc_listen: an address"),
        ("server.public_url", "http://accounts.example.com", "server.public_url: plain http"),
        ("server.public_url", "https://accounts.example.com/x", "server.public_url: scheme, host and port only"),
        ("server.public_url", "https://accounts.example.com?", "server.public_url: scheme, host and port only"),
        ("server.public_url", "https://me:pw@accounts.example.com", "server.public_url: scheme, host and port only"),
        ("server.public_url", "https://accounts.example.com:99999", "server.public_url: scheme, host and port only"),
        ("server.public_url", "https://[::1", "server.public_url: scheme, host and port only"),
        ("server.public_url", "accounts.example.com", "server.public_url: scheme, host and port only"),
        ("server.drain_timeout", 30, 'a span is text such as "90s", "5m", "2h" or "30d" (it is 30)'),
        ("server.drain_timeout", "0s", "server.drain_timeout"),
        ("refresh.lease", "999999999d", "refresh.lease: must be at most ten years"),
        ("refresh.lease", "fast", "refresh.lease: a span"),
        ("watch.heartbeat", "61s", "watch.heartbeat: Input should be less than or equal to 1 minute"),
        ("log.format", "xml", "log.format"),
        ("database.url", "mysql://db/accounts", "database.url"),
        ("database.url", "postgresql://db", "database.url"),
        ("database.url", "postgresql://[::1/accounts", "database.url"),
        ("database.url", "sqlite:///", "database.url"),
        ("database.url", "postgresql://db/accounts", "refresh.journal: required with PostgreSQL"),
        ("platforms.twitter.client_secret_env", "X", "either client_secret_file or client_secret_env"),
        ("platforms.twitter.client_secret_file", "nowhere", "cannot be read"),
        ("platforms.twitter.client_id", "", "platforms.twitter.client_id"),
        ("platforms.twitter.token_endpoint", "http://127.0.0.1:1/t", "only while server.public_url is loopback too"),
        ("platforms.twitter.token_endpoint", "http://evil.test/t", "plain http is for loopback only"),
        ("platforms.twitter.token_endpoint", "file:///etc/passwd", "an absolute https URL"),
        ("platforms.twitter.token_endpoint", "https://[::1", "an absolute https URL"),
        ("platforms.friendster.client_id", "x", "platforms.friendster: no such platform; known: twitter"),
        ("callers.web.api_keys_sha256", [], "callers.web.api_keys_sha256"),
        ("callers.web.certificate_sans", ["spiffe://test/web"], "callers.web.certificate_sans: nobody is asked for"),
        ("callers.web.certificate_sans", ["web.test"], "callers.web.certificate_sans.0: a name in a certificate"),
        ("callers.web.certificate_sans", ["dns:*.test"], "callers.web.certificate_sans.0: a name in a certificate"),
        ("callers.web.certificate_sans", ["dns:Web.test"], "callers.web.certificate_sans.0: a name in a certificate"),
        ("callers.web.allow_shim_completion", 1, "callers.web.allow_shim_completion: true or false"),
        ("callers.web.allow_shim_completion", "on", "callers.web.allow_shim_completion: true or false"),
        ("server.reflection", 1, "server.reflection"),
        ("callers.web.rate", 0, "callers.web.rate"),
        ("callers.web.rate", "fast", "callers.web.rate"),
        ("callers.web.accounts_a_minute", 0, "callers.web.accounts_a_minute"),
        ("callers.web.accounts_a_minute", -1, "callers.web.accounts_a_minute"),
        ("callers.web.revokes_a_minute", 10**9, "callers.web.revokes_a_minute"),
        ("callers.web.pending_connects", 0, "callers.web.pending_connects"),
        ("callers.web.api_keys_sha256", ["short"], "callers.web.api_keys_sha256.0: 64 lower-case hex digits"),
        ("callers.web.api_keys_sha256", ["A" * 64], "callers.web.api_keys_sha256.0: 64 lower-case hex digits"),
        ("callers.web.api_keys_sha256", [hashlib.sha256(b"").hexdigest()], "0: the SHA-256 of nothing"),
        ("callers.web.permissions", ["everything"], "callers.web.permissions"),
        ("callers.web.profiles", [""], "callers.web.profiles.0: an empty prefix would be all profiles"),
        ("callers.web.platforms", ["friendster"], "callers.web.platforms: no such platform: friendster"),
        ("callers.web.return_urls", ["//evil"], "callers.web.return_urls"),
        ("callers.web.return_urls", ["http://app.example.com/x"], "callers.web.return_urls"),
        ("callers.web.return_urls", ["https://a@evil.test/"], "callers.web.return_urls"),
        ("callers.web.return_urls", ["javascript:alert(1)"], "callers.web.return_urls"),
        ("callers.web.return_urls", ["https://app.example.com\\@evil.test/"], "callers.web.return_urls"),
        ("callers.web.return_urls", ["https://app.example.com/ x"], "callers.web.return_urls"),
        ("callers.web.return_urls", ["https://@app.example.com/"], "callers.web.return_urls"),
        ("callers.web.return_urls", ["https://app.example.com:x/"], "callers.web.return_urls"),
        ("callers.web.return_urls", ["https://[::1/"], "callers.web.return_urls"),
        ("callers.web.return_urls", ["https://äpp.example.com/"], "callers.web.return_urls"),
        ("callers.web.redirect_uris", ["https://app.example.com/#"], "callers.web.redirect_uris"),
        ("callers.web.redirect_uris", ["https://app.example.com/#x"], "callers.web.redirect_uris"),
        ("callers.other", {"api_keys_sha256": [KEY], **NO_RIGHTS}, "callers.web has the same key"),
        ('callers."operator ada"', {"api_keys_sha256": ["b" * 64], **NO_RIGHTS}, "callers.operator ada: a caller's"),
    ],
)
def test_a_wrong_setting_is_named_by_its_key(folder: Path, path: str, value: Any, told: str) -> None:
    with pytest.raises(config.ConfigError) as caught:
        load(folder, changed(path, value))
    assert any(told in problem for problem in caught.value.problems), caught.value.problems


TLS = {"cert_file": "server.pem", "key_file": "server.key"}


def test_beyond_loopback_it_listens_with_tls(folder: Path) -> None:
    Authority().server_files(folder, clients_of=Authority())
    settings = changed("server.grpc_listen", "0.0.0.0:50051")
    settings["server"]["tls"] = {**TLS, "client_ca_file": "ca.pem"}
    tls = load(folder, settings).server.tls
    assert tls is not None
    assert (tls.cert_file, tls.key_file, tls.client_ca_file) == (
        folder / "server.pem", folder / "server.key", folder / "ca.pem",
    )  # fmt: skip
    assert load(folder, settings).server.serves_reflection is False


def test_a_caller_may_have_names_in_place_of_keys_and_no_name_is_of_two(folder: Path) -> None:
    Authority().server_files(folder, clients_of=Authority())
    settings = changed("server.tls", {**TLS, "client_ca_file": "ca.pem"})
    settings["callers"]["publisher"] = {
        "certificate_sans": ["spiffe://test/publisher", "dns:publisher.test"], **NO_RIGHTS,
    }  # fmt: skip
    found = load(folder, settings).callers_by_san()
    assert {san: caller.name for san, caller in found.items()} == {
        "spiffe://test/publisher": "publisher", "dns:publisher.test": "publisher",
    }  # fmt: skip
    settings["callers"]["web"]["certificate_sans"] = ["dns:publisher.test"]
    with pytest.raises(
        config.ConfigError, match=r"callers\.publisher\.certificate_sans: callers\.web has the same name"
    ):
        load(folder, settings)


def foreign_key(folder: Path) -> None:
    (folder / "server.key").write_bytes(Authority().issue("dns:other")[0])


def key_with_password(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    (folder / "server.key").write_bytes(sealed)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "server.key").chmod(0o640), "server.tls.key_file: .*chmod 600"),
        (lambda folder: (folder / "server.pem").chmod(0o664), "server.tls.cert_file: .*chmod go-w"),
        (lambda folder: (folder / "ca.pem").chmod(0o646), "server.tls.client_ca_file: .*chmod go-w"),
        (lambda folder: (folder / "ca.pem").write_text("canary"), "server.tls.client_ca_file: holds no PEM"),
        (lambda folder: (folder / "server.pem").write_text("canary"), "server.tls: cert_file and key_file must be"),
        (lambda folder: (folder / "server.key").unlink(), "server.tls.key_file: .*cannot be read"),
        (foreign_key, "server.tls: cert_file and key_file must be"),
        (key_with_password, "server.tls: cert_file and key_file must be"),
    ],
)
def test_tls_files_that_would_not_serve_are_named(folder: Path, spoil: Any, told: str) -> None:
    Authority().server_files(folder, clients_of=Authority())
    spoil(folder)
    with pytest.raises(config.ConfigError) as caught:
        load(folder, changed("server.tls", {**TLS, "client_ca_file": "ca.pem"}))
    [problem] = caught.value.problems
    assert re.match(told, problem) and "canary" not in problem


@pytest.mark.parametrize("section", ["callers", "platforms"])
def test_no_caller_no_start_and_no_platform_no_start(folder: Path, section: str) -> None:
    for settings in ({**GOOD, section: {}}, {name: body for name, body in GOOD.items() if name != section}):
        with pytest.raises(config.ConfigError) as caught:
            load(folder, settings)
        assert [problem.split(":")[0] for problem in caught.value.problems] == [section]


def test_what_settings_must_be_to_each_other_is_told_together_with_what_each_must_be(folder: Path) -> None:
    settings = changed("server.grpc_listen", "0.0.0.0:50051")
    settings["log"] = {"level": "loud"}
    with_key = {"api_keys_sha256": [KEY], **NO_RIGHTS}
    settings["callers"] = {"web": with_key, "copy": with_key, "bad": NO_RIGHTS, "lost": {"api_keys_sha256": [KEY]}}
    settings["platforms"] = {"twitter": {"client_id": "id"}, "friendster": {"client_id": ""}}
    with pytest.raises(config.ConfigError) as caught:
        load(folder, settings)
    assert {problem.split(":")[0] for problem in caught.value.problems} == {
        "log.level",
        "callers.bad.api_keys_sha256",
        "callers.lost.permissions",
        "callers.lost.profiles",
        "callers.lost.platforms",
        "platforms.friendster.client_id",
        "server.grpc_listen",
        "platforms.twitter",
        "callers.copy.api_keys_sha256",
    }


def test_all_problems_are_named_at_once_and_no_value_with_them(folder: Path) -> None:
    settings = changed("callers.web.api_keys_sha256", ["key-canary"])
    settings["server"] = {"public_url": "https://a.test", "drain_timeout": "soon", "odd": 1}
    with pytest.raises(config.ConfigError) as caught:
        load(folder, settings)
    keys = {problem.split(":")[0] for problem in caught.value.problems}
    assert {"server.drain_timeout", "server.odd"} < keys and any("api_keys_sha256" in key for key in keys)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ACCOUNTS_LOG", "debug", "ACCOUNTS_LOG: no such setting"),
        ("accounts_refrsh__lease", "5m", "accounts_refrsh__lease: no such setting"),
        ("ACCOUNTS_LOG__LEVL", "debug", "log.levl: unknown key"),
        ("ACCOUNTS_CALLERS__WEB__PERMISSIONS", "read", "lists are JSON"),
        ("ACCOUNTS_CALLERS__WEB__PERMISSIONS", '["all"]', "callers.web.permissions"),
        ("ACCOUNTS_SERVER__GRPC_LISTEN", "0.0.0.0:1", "server.grpc_listen: beyond loopback"),
    ],
)
def test_the_environment_is_checked_as_the_file_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(config.ConfigError) as caught:
        load(folder, GOOD)
    assert any(told in problem for problem in caught.value.problems), caught.value.problems


def test_a_client_secret_may_be_in_any_variable_and_its_name_is_not_repeated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = changed("platforms.twitter", {"client_id": "id", "client_secret_env": "ACCOUNTS_X_CANARY"})
    with pytest.raises(config.ConfigError) as caught:
        load(folder, settings)
    assert "client_secret_env" in str(caught.value) and "CANARY" not in str(caught.value)
    monkeypatch.setenv("ACCOUNTS_X_CANARY", "client-secret-canary")
    loaded = load(folder, settings)
    assert loaded.platforms["twitter"].client_secret().reveal() == "client-secret-canary"
    assert "client-secret-canary" not in config.to_text(loaded)


def test_an_unknown_variable_of_ours_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCOUNTS_REFRSH__LEASE", "5m")
    with pytest.raises(config.ConfigError, match="ACCOUNTS_REFRSH__LEASE"):
        load(folder, GOOD)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620])
def test_a_secret_file_that_others_can_touch_is_refused(folder: Path, mode: int) -> None:
    (folder / "secret").chmod(mode)
    with pytest.raises(config.ConfigError, match="chmod 600"):
        load(folder, GOOD)


def test_a_secret_file_that_is_empty_or_no_file_is_refused(folder: Path) -> None:
    (folder / "secret").write_text("\n")
    with pytest.raises(config.ConfigError, match="is empty"):
        load(folder, GOOD)
    (folder / "secret").unlink()
    os.mkfifo(folder / "secret", 0o600)
    with pytest.raises(config.ConfigError, match="not a regular file"):
        load(folder, GOOD)


@pytest.mark.parametrize("text", ["[server", "a = 1\na = 2", "x = " + "[" * 100_000])
def test_what_is_not_toml_is_refused_by_the_files_name(folder: Path, text: str) -> None:
    (folder / "config.toml").write_text(text)
    with pytest.raises(config.ConfigError, match=r"config\.toml: not TOML"):
        config.load(folder / "config.toml", ("twitter",))
    with pytest.raises(config.ConfigError, match="No such file"):
        config.load(folder / "nowhere.toml", ("twitter",))


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x7f")
ODD_TAILS = st.text("htps:/[]@#?\\.%0159ax- é\x00", max_size=30)
ODD_URLS = ODD_TAILS.map("https://{}".format) | st.text(CHARACTERS, max_size=30)
ODD_ADDRESSES = r"(127\.0\.0\.1|\[::1\]|localhost|0\.0\.0\.0|\[::\]|.{1,5}):[0-9]{1,6}.?"
URL_KEYS = ["server.public_url", "platforms.twitter.token_endpoint", "callers.web.return_urls"]
ONE_URL = re.compile(r"https://[^/?#@\\\s]+([/?][^#\\\s]*)?")


@quick
@given(url=ODD_URLS, key=st.sampled_from(URL_KEYS))
def test_whatever_stands_for_a_url_is_one_or_is_refused(folder: Path, url: str, key: str) -> None:
    try:
        load(folder, changed(key, [url] if key.endswith("urls") else url))
    except config.ConfigError as refused:
        assert all(key in problem for problem in refused.problems), refused.problems
    else:
        assert ONE_URL.fullmatch(url)


@quick
@given(address=st.from_regex(ODD_ADDRESSES, fullmatch=True, alphabet=CHARACTERS))
def test_whatever_stands_for_the_grpc_address_is_on_loopback_or_is_refused(folder: Path, address: str) -> None:
    try:
        load(folder, changed("server.grpc_listen", address))
    except config.ConfigError as refused:
        assert all("server.grpc_listen" in problem for problem in refused.problems), refused.problems
    else:
        host, port = config.split_address(address)
        assert host in ("127.0.0.1", "::1", "localhost") and 0 <= port < 65536


def test_a_sandbox_is_reached_only_by_a_local_configuration(folder: Path) -> None:
    settings = changed("platforms.twitter.token_endpoint", "http://127.0.0.1:8081/2/oauth2/token")
    settings["server"]["public_url"] = "http://127.0.0.1:8080"
    with pytest.raises(config.ConfigError, match="needs all its endpoints here; missing: authorization_endpoint"):
        load(folder, settings)
    for name in ("authorization_endpoint", "revocation_endpoint", "identity_endpoint"):
        settings["platforms"]["twitter"][name] = "http://127.0.0.1:8081/x"
    settings["platforms"]["twitter"]["api_base"] = "http://127.0.0.1:8081"
    assert load(folder, settings).platforms["twitter"].sandboxed


def test_the_effective_settings_are_shown_without_secrets(folder: Path) -> None:
    text = config.to_text(load(folder, GOOD))
    assert "canary" not in text and KEY not in text
    for line in (
        'server.drain_timeout = "30s"',
        "server.reflection = true",
        f'refresh.journal = "{folder}/accounts.db.journal"',
        'callers.web.api_keys_sha256 = ["aaaaaaaa…"]',
        'callers.web.permissions = ["connect", "read"]',
        'callers.web.rate = "no limit"',
        'callers.web.accounts_a_minute = "no limit"',
    ):
        assert line in text.splitlines()


def test_the_password_of_a_database_is_not_shown(folder: Path) -> None:
    settings = changed(
        "database.url",
        "postgresql://accounts:canary@canary@db.test:5432/accounts?sslmode=verify-full&password=canary&sslpassword=canary",
    )
    settings["refresh"] = {"journal": "journal"}
    loaded = load(folder, settings)
    assert loaded.database.path is None
    assert "canary" not in config.to_text(loaded)
    assert "postgresql://accounts:<redacted>@db.test:5432/accounts?sslmode=verify-full" in config.to_text(loaded)


def test_metrics_are_off_unless_they_have_an_address(folder: Path) -> None:
    assert load(folder, GOOD).server.metrics_listen is None
    assert load(folder, changed("server.metrics_listen", "")).server.metrics_listen is None
    assert load(folder, changed("server.metrics_listen", "0.0.0.0:9464")).server.metrics_listen == "0.0.0.0:9464"


def test_the_example_is_sound_and_shows_every_key(folder: Path) -> None:
    example = (ROOT / "config.example.toml").read_text()
    for name in ("x-client-secret",):
        (folder / name).write_text("s")
        (folder / name).chmod(0o600)
    # Its optional section is shown in a comment; it is sound too.
    with_tls = re.sub(r"^# (\[server\.tls]|(?:cert|key|client_ca)_file = )", r"\1", example, flags=re.MULTILINE)
    Authority().server_files(folder, clients_of=Authority()).client_ca.rename(folder / "client-ca.pem")
    for text in (example, with_tls):
        (folder / "example.toml").write_text(text)
        config.load(folder / "example.toml", ("twitter",))
    assert set(tomllib.loads(with_tls)["server"]["tls"]) == set(config.Tls.model_fields)
    shown = tomllib.loads(with_tls)
    commented = {
        line[2:].split(" = ")[0].strip() for line in with_tls.splitlines() if line.startswith("# ") and " = " in line
    }
    for section, field in config.Settings.model_fields.items():
        kind: Any = field.annotation
        body = shown[section]
        if section in ("platforms", "callers"):
            kind, [body] = kind.__args__[1], body.values()
        assert set(kind.model_fields) <= set(body) | commented, section
        commented -= set(kind.model_fields)
    assert not commented, "a key in a comment is none of the settings"
