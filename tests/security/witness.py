"""Sees all that a running deployment shows and leaves behind: replies, pages, logs, files, /proc, commands."""

import asyncio
import contextlib
import json
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import grpc.aio

from sandbox.local import Local
from tests.security.canary import Canaries, Hit

FILES = {"keys.json": ["key"], "client-secret": ["client secret"], "api-key": ["API key"]}
"""Files of a deployment that are there to hold a secret, and of which kind."""
SEEN_IN_PROC = ("cmdline", "comm", "environ", "status", "limits", "mounts", "wchan")
MARKED = {"at": "access token", "rt": "refresh token", "code": "code"}
"""What the sandbox marks its secrets with."""
ISSUED = {"BeginConnect": ["state"]}
"""Replies that are there to hand a secret to the caller."""


class Witness:
    """Searches each output at once, with the secrets that are known by then, and again at the end."""

    def __init__(self, local: Local, log: Path, temporary: Path, metrics: str) -> None:
        self.canaries = Canaries()
        self.outputs: list[tuple[str, bytes, list[str]]] = []
        self._local, self._log, self._temporary, self._metrics = local, log, temporary, metrics
        for name, [kind] in FILES.items():
            if kind != "key":
                self.canaries.add(kind, (local.folder / name).read_bytes())

    def see(self, output: str, content: bytes | str, *allowed: str) -> None:
        self.outputs.append((output, content.encode() if isinstance(content, str) else content, list(allowed)))

    def hits(self) -> set[Hit]:
        # Several looks at the same file see the same bytes.
        different = {content: (output, allowed) for output, content, allowed in self.outputs}
        return {
            hit
            for content, (output, allowed) in different.items()
            for hit in self.canaries.find(output, content, allowed)
        }

    def look_around(self, when: str) -> None:
        """Every file of the deployment and its temporary folder as they are now, and the process from outside."""
        for folder in (self._local.folder, self._temporary):
            for path in filter(Path.is_file, folder.rglob("*")):
                # The start of a file may be written anew while it is read: what matters is what is on the disk.
                self.see(f"{path.name} {when}", path.read_bytes(), *FILES.get(path.name, []))
        proc = Path(f"/proc/{self._local.pid('server')}")
        for name in SEEN_IN_PROC:
            self.see(f"/proc/PID/{name} {when}", (proc / name).read_bytes())
        opened = []
        for file in (proc / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                opened.append(str(file.readlink()))
        self.see(f"open files {when}", "\n".join(opened))
        with urllib.request.urlopen(self._metrics, timeout=5) as response:
            self.see(f"metrics {when}", response.read())

    def read_log(self) -> bytes:
        text = self._log.read_bytes()
        self.see("log", text)
        return text

    def add_keys(self) -> None:
        """The keys of the ring as they are now, as bytes and as text."""
        for key in json.loads((self._local.folder / "keys.json").read_text())["keys"]:
            if text := key.get("key"):
                self.canaries.add("key", text)

    async def command(self, *words: str) -> None:
        """Runs a command of the server, and sees what it prints; it must succeed, within the time that others need."""
        for _ in range(100):
            done = await asyncio.to_thread(
                subprocess.run, self._local.server_command(*words), capture_output=True, check=False, timeout=60
            )
            self.see(f"command {' '.join(words[:2])}", done.stdout + done.stderr)
            if done.returncode == 0:
                return
            await asyncio.sleep(0.2)
        raise AssertionError(f"{words}: {done.stderr.decode()}")

    async def browse(self, url: str, method: str = "GET") -> dict[str, str]:
        """Opens a page as a browser would; the query that it is sent on with."""
        async with (
            aiohttp.ClientSession() as browser,
            browser.request(method, url, allow_redirects=False) as response,
        ):
            location = response.headers.get("Location", "")
            headers = {name: value for name, value in response.headers.items() if name != "Location"}
            self.see("page", f"{response.status} {headers} ".encode() + await response.read())
            self.see("redirect", location, "completion code")
        query = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        if code := query.get("completion_code"):
            self.canaries.add("completion code", code)
        return query

    def begun(self, authorization_url: str) -> None:
        self.canaries.add("state", parse_qs(urlsplit(authorization_url).query)["state"][0])

    def note_platform(self, requests: list[dict[str, Any]]) -> None:
        """What was sent to the platform and given by it."""
        for secret in (secret for request in requests for secret in request.get("secrets", ())):
            marked = re.match(r"sbx-(\w+)-canary-", secret)
            self.canaries.add(MARKED[marked[1]] if marked else "verifier", secret)


class Recorder(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Shows a witness what came back of each call: reply, text and every trailer."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        method = details.method.decode() if isinstance(details.method, bytes) else details.method
        said = [await call.initial_metadata(), await call.trailing_metadata(), await call.details()]
        reply = (await call).SerializeToString() if await call.code() is grpc.StatusCode.OK else b""
        name = method.rpartition("/")[2]
        self._witness.see(f"reply of {name}", repr(said).encode() + reply, *ISSUED.get(name, []))
        return call
