"""The operators' commands about callers, and what they do to real, running servers."""

import asyncio
import hashlib
import re
import subprocess
import time
import tomllib
import urllib.request
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest
from synposter.accounts.v1 import account_service_pb2 as pb
from synposter.accounts.v1.account_service_pb2_grpc import AccountServiceStub
from synposter_accounts import AccountNotFound, AsyncAccounts, CallerNotPermitted

from sandbox.local import Local
from sandbox.ports import free_port
from server.commands.operate import operator
from tests.authority import Authority
from tests.e2e.test_operating import command
from tests.faults.processes import fleet
from tests.postgres import fresh_database

NOBODY = "01890a5d-ac96-774b-bcce-b302099a8057"
PATIENCE = 5.0


@pytest.fixture
def local(tmp_path: Path) -> Local:
    """A deployment of which no process runs."""
    local = Local(tmp_path / "deployment", ports={part: free_port() for part in ("grpc", "http", "sandbox")})
    local.prepare()
    return local


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_lines_of_an_added_caller_let_it_in_and_nothing_is_written(local: Local) -> None:
    before = {path: path.read_bytes() for path in local.folder.iterdir() if path.is_file()}
    done = command(local, "callers", "add", "publisher", "--permission", "read", "--profile", "acme/",
                   "--platform", "twitter")  # fmt: skip
    assert {path: path.read_bytes() for path in local.folder.iterdir() if path.is_file()} == before
    lines = tomllib.loads(told(done))["callers"]["publisher"]
    [key] = re.findall(r"^\S{43}$", done.stderr, re.MULTILINE)
    assert lines == {
        "api_keys_sha256": [hashlib.sha256(key.encode()).hexdigest()], "permissions": ["read"], "profiles": ["acme/"],
        "platforms": ["twitter"],
    }  # fmt: skip
    assert key not in done.stdout
    with local.config_file.open("a") as config:
        config.write(f"\n{done.stdout}")
    assert "publisher  read" in told(command(local, "callers", "list"))


def add_to_file(local: Local, *words: str) -> subprocess.CompletedProcess[str]:
    """As docs/operations.md has it: callers add NAME >> FILE."""
    done = command(local, "callers", "add", *words)
    with local.config_file.open("a") as config:
        config.write(done.stdout)
    return done


def test_a_second_key_of_a_caller_goes_to_no_other_though_it_is_added_to_the_end_of_the_file(local: Local) -> None:
    told(add_to_file(local, "last", "--permission", "read"))
    before = local.settings["callers"]
    done = add_to_file(local, "local")
    assert told(done) == "", "any line would land in the last section"
    assert local.settings["callers"] == before
    told(command(local, "callers", "list"))
    [line] = re.findall(r"^api_keys_sha256 = .*$", done.stderr, re.MULTILINE)
    [key] = re.findall(r"^\S{43}$", done.stderr, re.MULTILINE)
    digests = tomllib.loads(line)["api_keys_sha256"]
    assert digests == [*before["local"]["api_keys_sha256"], hashlib.sha256(key.encode()).hexdigest()]
    assert "[callers.local]" in done.stderr
    for words in (("local", "--permission", "read"), ("no good",), ("a]\n[server",), ("", "--permission", "read")):
        assert command(local, "callers", "add", *words).returncode == 2


def test_a_new_section_begins_on_a_line_of_its_own_after_a_file_that_ends_in_a_comment(local: Local) -> None:
    text = local.config_file.read_text()
    local.config_file.write_text(f"{text}\n# the end")
    told(add_to_file(local, "publisher", "--permission", "read"))
    assert local.settings["callers"].keys() == {"local", "publisher"}


def test_a_first_caller_can_be_added_before_there_is_any(local: Local) -> None:
    local.config_file.write_text(local.config_file.read_text().split("[callers.local]")[0])
    assert tomllib.loads(told(command(local, "callers", "add", "web")))["callers"]["web"]["api_keys_sha256"]


def test_check_says_in_words_what_a_caller_may_do_and_see(local: Local) -> None:
    Authority().server_files(local.folder, clients_of=Authority())
    text = local.config_file.read_text().replace("[log]", TLS + "\n[log]")
    local.config_file.write_text(
        text + '\n[callers.web]\ncertificate_sans = ["dns:web.test"]\npermissions = ["read"]\nprofiles = ["acme/"]\n'
        'platforms = ["twitter"]\nrate = 20\naccounts_a_minute = 1000\n'
    )
    words = told(command(local, "callers", "check", "web"))
    for sentence in (
        "web is let in.",
        "It proves itself with a certificate that names dns:web.test.",
        "It may read: GetAccount, ListAccounts, WatchAccounts, ListUsage.",
        "It may not revoke: Revoke.",
        "It may not list_all: ListAccounts and WatchAccounts of all profiles that it sees at once.",
        "It sees acme/… profiles, on twitter platforms.",
        "In each process it may make 20 calls a second, of 1,000 accounts a minute, 1,000 revokes a minute, "
        "and watch 1,000 times at once.",
    ):
        assert sentence in words.splitlines()
    key = local.settings["callers"]["local"]["api_keys_sha256"][0]
    words = told(command(local, "callers", "check", "local"))
    assert key[:8] in words and key not in words and "completed by the callback alone" in words
    assert "It sees all profiles, on all platforms." in words
    refused = command(local, "callers", "check", "nobody")
    assert refused.returncode == 2 and "callers: local, web" in refused.stderr


TLS = '[server.tls]\ncert_file = "server.pem"\nkey_file = "server.key"\nclient_ca_file = "ca.pem"\n'


async def until_blocked(target: str, key: str, *, blocked: bool) -> float:
    """Seconds until calls are refused, or let in again."""
    began = time.monotonic()
    async with AsyncAccounts(target, key) as accounts:
        while True:
            try:
                await accounts.get(NOBODY)
            except CallerNotPermitted:
                if blocked:
                    return time.monotonic() - began
            except AccountNotFound:
                if not blocked:
                    return time.monotonic() - began
            assert time.monotonic() < began + PATIENCE, "it works within five seconds"
            await asyncio.sleep(0.05)


async def test_a_blocked_caller_is_refused_by_all_running_servers_within_five_seconds(
    tmp_path: Path, postgres: str
) -> None:
    async with fleet(tmp_path, servers=2, database_url=fresh_database(postgres)) as running:
        running.start()
        first = running.servers[0]
        done = command(first, "callers", "block", "local", "--reason", "its key was stolen")
        assert told(done) == "local is blocked\n"
        await asyncio.gather(*(until_blocked(each.target, each.api_key, blocked=True) for each in running.servers))
        listed = told(command(first, "callers", "list"))
        assert f"blocked by {operator()}" in listed and "its key was stolen" in listed
        assert "Nothing below holds" in told(command(first, "callers", "check", "local"))
        told(command(first, "callers", "unblock", "local"))
        await asyncio.gather(*(until_blocked(each.target, each.api_key, blocked=False) for each in running.servers))


def test_the_kill_switches_and_the_audit_need_no_key_file(local: Local) -> None:
    (local.folder / "keys.json").unlink()
    for words in (
        ("callers", "block", "local", "--reason", "stolen"),
        ("callers", "list"),
        ("callers", "check", "local"),
        ("callers", "unblock", "local"),
        ("platforms", "pause", "twitter", "--reason", "incident"),
        ("platforms", "list"),
        ("platforms", "resume", "twitter"),
        ("audit", "verify"),
    ):
        done = command(local, *words)
        assert done.returncode == 0, (words, done.stderr)
    assert "not linked yet: 4" in done.stdout


def test_who_is_no_caller_is_not_blocked(local: Local) -> None:
    for words in (("block", "nobody", "--reason", "x"), ("unblock", "nobody")):
        done = command(local, "callers", *words)
        assert done.returncode == 2 and "nobody is no caller" in done.stderr


async def test_a_running_server_takes_new_tls_files_over_and_tells_when_they_end(local: Local, tmp_path: Path) -> None:
    old, new, port = Authority("old"), Authority("new"), free_port()
    old.server_files(local.folder, clients_of=old)
    text = local.config_file.read_text().replace("[log]", f'metrics_listen = "127.0.0.1:{port}"\n\n{TLS}\n[log]')
    local.config_file.write_text(
        f'{text}\n[callers.publisher]\ncertificate_sans = ["spiffe://test/publisher"]\npermissions = ["read"]\n'
        'profiles = ["*"]\nplatforms = ["*"]\n'
    )
    local.start_server()
    try:
        san = "spiffe://test/publisher"
        assert await answer(local, old.credentials(old.issue(san))) is grpc.StatusCode.NOT_FOUND
        ends = metric(port)
        for file in new.server_files(tmp_path, clients_of=new, expires_in=timedelta(days=20)):
            assert file is not None
            file.rename(local.folder / file.name)
        deadline = time.monotonic() + PATIENCE
        while await answer(local, new.credentials(new.issue(san))) is not grpc.StatusCode.NOT_FOUND:
            assert time.monotonic() < deadline
        assert await answer(local, old.credentials(old.issue(san))) is grpc.StatusCode.UNAVAILABLE
        assert metric(port) - ends > timedelta(days=10).total_seconds() and ends > time.time()
    finally:
        local.stop()


async def answer(local: Local, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    """What a caller with a certificate and no key gets, over a new connection."""
    async with grpc.aio.secure_channel(local.target, credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await AccountServiceStub(channel).GetAccount(pb.GetAccountRequest(id=NOBODY), timeout=5)  # type: ignore[no-untyped-call]
    return caught.value.code()


def metric(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        text = response.read().decode()
    [value] = re.findall(r'accounts_certificate_expire_timestamp_seconds\{certificate="server"\} (\S+)', text)
    return float(value)
