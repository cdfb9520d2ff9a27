"""A whole local deployment in one folder: key, database, configuration, a sandbox platform and the service.

`make run`, the demo, the benches and the end-to-end tests use it. Nothing in it is for production.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self
from urllib.parse import urlsplit

CONFIG = """\
# A local deployment of Connected Accounts, written once; edit it freely. config.example.toml explains each key.
[server]
grpc_listen = "127.0.0.1:{grpc}"
http_listen = "127.0.0.1:{http}"
public_url = "http://127.0.0.1:{http}"

[log]
format = "console"
level = "{level}"

[database]
url = "sqlite:///accounts.db"

[keys]
file = "keys.json"

[refresh]
min_interval = "{min_interval}"
identity_interval = "{identity_interval}"

# X as the sandbox plays it. For the real one, delete the five endpoints and put your own client id and secret here.
[platforms.twitter]
client_id = "sandbox-client"
client_secret_file = "client-secret"
authorization_endpoint = "http://127.0.0.1:{sandbox}/i/oauth2/authorize"
token_endpoint = "http://127.0.0.1:{sandbox}/2/oauth2/token"
revocation_endpoint = "http://127.0.0.1:{sandbox}/2/oauth2/revoke"
identity_endpoint = "http://127.0.0.1:{sandbox}/2/users/me"
api_base = "http://127.0.0.1:{sandbox}"

[callers.local]
api_keys_sha256 = ["{key_hash}"]
permissions = ["connect", "read", "refresh", "revoke", "delete", "act", "list_all", "operate"]
profiles = ["*"]
platforms = ["*"]
return_urls = ["http://127.0.0.1:{http}/your-app"]
redirect_uris = ["http://127.0.0.1:{http}/your-app/callback"]
allow_shim_completion = true
routes = [
    "twitter POST /2/tweets",
    "twitter GET /2/tweets",
    "twitter GET /2/tweets/{{id}}",
    "twitter DELETE /2/tweets/{{id}}",
    "twitter GET /2/users/{{id}}",
    "twitter GET /2/users/{{id}}/tweets",
    "twitter POST /2/media/upload",
    "twitter GET /2/media/upload",
    "twitter POST /2/media/upload/initialize",
    "twitter POST /2/media/upload/{{id}}/append",
    "twitter POST /2/media/upload/{{id}}/finalize",
    "linkedin GET /v2/userinfo",
    "linkedin POST /rest/posts",
    "linkedin DELETE /rest/posts/{{urn}}",
]
"""

READY_SECONDS = 20.0


class StartFailed(Exception):
    """A process of the deployment did not come up; the text says why."""


class Process(Protocol):
    """What is used of a subprocess.Popen."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: signal.Signals, /) -> None: ...


@dataclass
class Local:
    """The deployment in `folder`. Files that exist are kept; ports are taken from its configuration."""

    folder: Path
    ports: Mapping[str, int] = field(default_factory=lambda: {"grpc": 50051, "http": 8080, "sandbox": 8081})
    min_interval: str = "60s"
    identity_interval: str = "1m"
    level: str = "info"
    access_token_seconds: int = 7200
    log: IO[bytes] | None = None
    """Where the processes write; None is this process's own output."""

    def __post_init__(self) -> None:
        self._processes: dict[str, Process] = {}

    @property
    def config_file(self) -> Path:
        return self.folder / "config.toml"

    @property
    def settings(self) -> dict[str, Any]:
        return tomllib.loads(self.config_file.read_text())

    @property
    def api_key(self) -> str:
        return (self.folder / "api-key").read_text()

    @property
    def target(self) -> str:
        """Where the service listens for gRPC."""
        return str(self.settings["server"]["grpc_listen"])

    @property
    def public_url(self) -> str:
        return str(self.settings["server"]["public_url"])

    @property
    def sandbox_url(self) -> str | None:
        """Where the sandbox plays X; None where the configuration names the real one."""
        endpoint = self.settings.get("platforms", {}).get("twitter", {}).get("token_endpoint", "")
        parts = urlsplit(endpoint)
        return f"{parts.scheme}://{parts.netloc}" if parts.hostname == "127.0.0.1" else None

    def prepare(self) -> None:
        """Writes what is missing: secrets, configuration, key file; and brings the database to the present schema."""
        self.write_files()
        if not (self.folder / self.settings["keys"]["file"]).exists():
            self.command("keys", "new")
        self.command("migrate")

    def write_files(self) -> None:
        """Secrets and configuration, where there is no configuration yet."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.config_file.exists():
            key = secrets.token_urlsafe(32)
            write_secret(self.folder / "api-key", key)
            write_secret(self.folder / "client-secret", "sandbox-secret-canary-" + secrets.token_urlsafe(16))
            text = CONFIG.format(
                **self.ports,
                level=self.level,
                min_interval=self.min_interval,
                identity_interval=self.identity_interval,
                key_hash=hashlib.sha256(key.encode()).hexdigest(),
            )
            self.config_file.write_text(text)

    def command(self, *words: str) -> str:
        """Runs a command of the server to its end; what it printed. Raises StartFailed."""
        done = subprocess.run(self.server_command(*words), capture_output=True, text=True, check=False)
        if done.returncode:
            raise StartFailed((done.stderr or done.stdout).strip().removeprefix("error: "))
        return done.stdout

    def server_command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "server", "--config", str(self.config_file), *words]

    def start(self) -> None:
        """Starts the sandbox, where one is configured, and the service; returns when both answer."""
        if self.sandbox_url is not None:
            self.start_sandbox()
        self.start_server()

    def start_sandbox(self) -> None:
        assert self.sandbox_url is not None
        platform = self.settings["platforms"]["twitter"]
        command = [
            sys.executable, "-m", "sandbox", "--listen", urlsplit(self.sandbox_url).netloc,
            "--client-id", platform["client_id"],
            "--client-secret-file", str(self.folder / platform["client_secret_file"]),
            "--redirect-uri", f"{self.public_url}/oauth/callback/twitter",
            "--redirect-uri", f"{self.public_url}/your-app/callback",
            "--access-token-seconds", str(self.access_token_seconds),
        ]  # fmt: skip
        self._run("sandbox", command, f"{self.sandbox_url}/control/users")

    def start_server(self) -> None:
        self._run("server", self.server_command(), f"http://{self.settings['server']['http_listen']}/healthz")

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> int:
        """Ends one process; its exit code."""
        process = self._processes.pop(name)
        process.send_signal(how)
        return process.wait(timeout=60)

    def ended(self, name: str, timeout: float = 60.0) -> int:
        """Waits for a process that something else ends; its exit code. Raises subprocess.TimeoutExpired."""
        code = self._processes[name].wait(timeout)
        del self._processes[name]
        return code

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    @staticmethod
    def launch(command: list[str], output: IO[bytes] | None) -> Process:
        """In a group of its own: Ctrl-C reaches this process alone, which then stops the others in order."""
        return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def stop(self) -> None:
        for name in reversed(list(self._processes)):
            self.kill(name, signal.SIGTERM)

    def wait(self) -> None:
        """Returns when one of the processes has ended."""
        while all(process.poll() is None for process in self._processes.values()):
            time.sleep(0.2)

    def __enter__(self) -> Self:
        self.prepare()
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _run(self, name: str, command: list[str], url: str) -> None:
        if answers(url):
            raise StartFailed(f"something else answers at {url}; the ports are in {self.config_file}")
        process = self._processes[name] = self.launch(command, self.log)
        until = time.monotonic() + READY_SECONDS
        while not answers(url):
            if process.poll() is not None:
                raise StartFailed(f"the {name} ended with {process.returncode}; see its output above")
            if time.monotonic() > until:
                raise StartFailed(f"the {name} does not answer at {url}")
            time.sleep(0.02)


def answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def write_secret(path: Path, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "w") as writer:
        writer.write(text)
