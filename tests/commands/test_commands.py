"""What operators are told by every command: help, and one line for what they can put right."""

import asyncio
import os
import runpy
import socket
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from sandbox import run
from sandbox.local import Local, StartFailed
from server.app import App, StartRefused
from server.commands.main import main
from server.commands.plainly import plain
from server.parts import load_settings, open_engine
from server.storage.engine import hold
from server.storage.keyring import KeyRing
from server.storage.store import Store
from server.storage.vault import Vault
from tests.moulds import furnished
from tests.storage.sealing import fill


@pytest.mark.parametrize(
    "words", [(), ("keys",), ("keys", "retire"), ("callers", "add"), ("audit", "verify"), ("backup",)]
)
def test_help_is_given_without_a_configuration(words: tuple[str, ...]) -> None:
    helped = CliRunner(env={"ACCOUNTS_CONFIG": None}).invoke(main, [*words, "--help"])
    assert helped.exit_code == 0 and helped.output.startswith("Usage:")


def test_ctrl_c_while_the_modules_are_still_read_ends_it_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "server.commands.main", Interrupted("server.commands.main"))
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("server", run_name="__main__")
    assert ended.value.code == 130


def groups(group: click.Group, *above: str) -> Iterator[tuple[str, ...]]:
    yield above
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from groups(each, *above, name)


@pytest.mark.parametrize("words", [*groups(main)])
def test_what_each_command_does_is_told_in_its_group_and_not_cut_off(words: tuple[str, ...]) -> None:
    listed = CliRunner().invoke(main, [*words, "--help"]).output.partition("Commands:")[2].split("\n")
    assert [line for line in listed if line and not line.endswith((".", "(the default command)."))] == []
    assert [line for line in listed if line.endswith("...")] == []


def test_a_command_without_a_configuration_asks_for_it() -> None:
    refused = CliRunner(env={"ACCOUNTS_CONFIG": None}).invoke(main, ["keys", "status"])
    assert refused.exit_code == 2 and "Missing option '--config'" in refused.output


def test_a_file_at_fault_is_named_without_the_number_of_its_error(tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised:
        (tmp_path / "none").read_text()
    assert plain(raised.value) == f"{tmp_path / 'none'}: No such file or directory"
    assert plain(OSError("told by us")) == "told by us"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://accounts:password-canary@127.0.0.1:1/accounts", "Connection refused"),
        ("postgresql://accounts:password-canary@127.0.0.1:99999/accounts", "database.url: "),
        ("postgresql://accounts:password-canary@127.0.0.1:1/accounts?sslmode=ful", "sslmode"),
    ],
)
def test_a_postgresql_that_cannot_be_used_is_told_in_one_line_with_the_reason_and_without_the_password(
    tmp_path: Path, url: str, why: str
) -> None:
    local = Local(tmp_path)
    local.write_files()
    text = local.config_file.read_text().replace("sqlite:///accounts.db", url)
    local.config_file.write_text(text.replace("[refresh]", '[refresh]\njournal = "journal"'))
    refused = CliRunner().invoke(main, ["--config", str(local.config_file), "platforms", "list"])
    assert refused.exit_code == 2
    [line] = refused.output.splitlines()
    assert line.startswith("error: ") and why in line and "canary" not in line


@pytest.mark.parametrize(
    ("rights", "problem"),
    [
        ("--permission act --platform twitter", "callers.web.routes: required with the permission act"),
        ("--permission read --platform twitter --route twitter,GET,/2/tweets", "of no use without the permission act"),
        ("--permission act --platform twitter --route /2/tweets", "callers.web.routes.0: "),
        ("--permission act --platform twitter --route twitter,POST,/2/none", "POST /2/none is not in its definition"),
        ("--permission read --platform twiter", "callers.web.platforms: no such platform: twiter"),
    ],
)
def test_rights_with_which_no_server_starts_are_refused_before_they_are_in_the_file(
    tmp_path: Path, rights: str, problem: str
) -> None:
    words = [word.replace(",", " ") for word in rights.split()]
    refused = CliRunner().invoke(main, ["--config", str(tmp_path / "none.toml"), "callers", "add", "web", *words])
    assert refused.exit_code == 2
    [line] = refused.output.splitlines()
    assert line.startswith("error: ") and problem in line


@pytest.fixture
def local(tmp_path: Path) -> Local:
    """The files of a deployment, and no process."""
    return furnished(tmp_path)


@pytest.mark.parametrize("decision", ["try", "give-up"])
def test_what_is_decided_about_suspect_grants_has_to_say_which(local: Local, decision: str) -> None:
    command = ["--config", str(local.config_file), "grants", "suspect", decision]
    refused = CliRunner().invoke(main, [*command, "--yes"])
    assert (refused.exit_code, refused.output) == (2, "error: say which: --living, --ended, --grant or --all\n")


@pytest.mark.parametrize("words", [("grants", "suspect", "try", "--all"), ("grants", "suspect", "give-up", "--all"),
                                   ("accounts", "revoke", "--all")])  # fmt: skip
def test_nobody_is_asked_about_nothing(local: Local, words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, ["--config", str(local.config_file), *words])
    assert done.exit_code == 0 and done.output.startswith("nothing to do: ")


@pytest.mark.parametrize("words", ["keys status", "platforms list", "callers list", "audit verify"])
async def test_tables_fit_a_terminal_of_a_hundred_columns(local: Local, words: str) -> None:
    settings = load_settings(local.config_file)
    engine = open_engine(settings)
    vault = Vault(KeyRing.load(settings.keys.file))
    await fill(Store(engine, vault, iter(map(str, range(10**6))).__next__))
    engine.close()
    done = await asyncio.to_thread(CliRunner().invoke, main, ["--config", str(local.config_file), *words.split()])
    assert done.exit_code == 0 and max(map(len, done.output.splitlines())) <= 100


@pytest.mark.parametrize(("words", "told"), [(("suspect",), "no grant is suspect"),
                                             (("unread",), "there are no unread answers")])  # fmt: skip
def test_a_list_of_nothing_says_so(local: Local, words: tuple[str, ...], told: str) -> None:
    done = CliRunner().invoke(main, ["--config", str(local.config_file), "grants", *words])
    assert (done.exit_code, done.output) == (0, f"{told}\n")


@pytest.mark.parametrize(("setting", "what"), [("HTTP_LISTEN", "the callback"), ("METRICS_LISTEN", "metrics")])
async def test_a_port_that_is_taken_is_told_with_what_wants_it(
    local: Local, monkeypatch: pytest.MonkeyPatch, setting: str, what: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv(f"ACCOUNTS_SERVER__{setting}", address)
        with pytest.raises(StartRefused) as refused:
            await App(load_settings(local.config_file), run_jobs=False).start()
    assert str(refused.value) == f"{what} cannot listen on {address}: Address already in use"


class Stranger(BaseHTTPRequestHandler):
    """Says that it is well, whoever asks."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def test_make_run_does_not_take_another_program_at_its_port_for_its_own(local: Local) -> None:
    with HTTPServer(("127.0.0.1", local.ports["http"]), Stranger) as stranger:
        Thread(target=stranger.serve_forever, daemon=True).start()
        with pytest.raises(StartFailed, match=f"something else answers at .*the ports are in {local.config_file}"):
            local.start_server()
        stranger.shutdown()


def test_what_a_command_says_of_its_failure_is_told_once(local: Local) -> None:
    lock = hold(local.folder / "accounts.db")
    try:
        with pytest.raises(StartFailed, match=r"^another process holds .*stop it first$"):
            local.command("migrate")
    finally:
        os.close(lock)


def test_a_folder_that_cannot_be_made_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["run", "--folder", str(tmp_path / "file" / "local")])
    with pytest.raises(SystemExit, match=f"^error: .*{tmp_path}"):
        run.main()
