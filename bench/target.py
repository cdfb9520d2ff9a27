"""A method under load: by h2load where it is installed, else by our own generator."""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

from synposter.accounts.v1 import account_service_pb2 as pb

from bench.fill import PER_PROFILE, account_id
from bench.load import Result
from sandbox.local import Local

SERVICE = "/synposter.accounts.v1.AccountService"
TURNS = 5
CONNECTIONS, STREAMS = 4, 16


class Target:
    """Prepared calls of one method, made over and over."""

    def __init__(self, port: int, method: str, key: str, messages: list[bytes]) -> None:
        self.port, self.method, self.key, self.messages = port, method, key, messages
        self.runs = 0

    def rate(self, seconds: float) -> float:
        """Calls a second, by h2load where it is installed: our own generator holds a bare server back by a fifth.

        h2load counts HTTP statuses only and sends one message, so our own first makes sure that the answers are good,
        and each run takes another message.
        """
        if shutil.which("h2load") is None:
            return self.run(seconds).rate
        self.run(0.2)
        self.runs += 1
        return self._h2load(self.messages[self.runs % len(self.messages)], seconds)

    def run(self, seconds: float) -> Result:
        """One run of our own generator, in a process of its own; it knows the latencies."""
        with self.kept_up(CONNECTIONS * STREAMS, seconds) as ended:
            return ended()

    @contextlib.contextmanager
    def kept_up(self, in_flight: int, seconds: float, ramp: float = 0.0) -> Iterator[Callable[[], Result]]:
        """So many calls in flight beside what is done meanwhile; gives what waits for their end."""
        task = {
            "port": self.port, "method": self.method, "key": self.key,
            "messages": [message.hex() for message in self.messages],
            "seconds": seconds, "connections": CONNECTIONS, "streams": in_flight // CONNECTIONS, "ramp": ramp,
        }  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-m", "bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as generator:
            assert generator.stdin is not None
            generator.stdin.write(json.dumps(task))
            generator.stdin.close()

            def ended() -> Result:
                assert generator.stdout is not None
                result = Result(**json.loads(generator.stdout.read()))
                assert not result.bad, f"{result.bad} calls of {self.method} failed"
                return result

            yield ended

    def _h2load(self, message: bytes, seconds: float) -> float:
        """Debian's nghttp2-client."""
        with tempfile.NamedTemporaryFile() as body:
            body.write(b"\x00" + len(message).to_bytes(4) + message)
            body.flush()
            command = [
                "h2load", "-D", str(max(1, round(seconds))), "-c", str(CONNECTIONS), "-m", str(STREAMS),
                "-d", body.name, "-H", "content-type: application/grpc", "-H", "te: trailers",
                "-H", f"authorization: Bearer {self.key}", f"http://127.0.0.1:{self.port}{self.method}",
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = re.search(r"([\d.]+) req/s", done.stdout)
        assert found is not None, done.stdout
        return float(found[1])


def noop(port: int) -> Target:
    return Target(port, "/bench.Bare/Noop", "", [b""])


def get_account(local: Local, accounts: int) -> Target:
    rng = random.Random(7)
    messages = [pb.GetAccountRequest(id=account_id(rng.randrange(accounts))).SerializeToString() for _ in range(5000)]
    return Target(grpc_port(local), f"{SERVICE}/GetAccount", local.api_key, messages)


def list_accounts(local: Local, accounts: int) -> Target:
    rng = random.Random(7)
    profiles = [f"acme/{rng.randrange(accounts // PER_PROFILE)}" for _ in range(2000)]
    messages = [pb.ListAccountsRequest(profile_id=profile).SerializeToString() for profile in profiles]
    return Target(grpc_port(local), f"{SERVICE}/ListAccounts", local.api_key, messages)


def grpc_port(local: Local) -> int:
    return int(local.target.split(":")[1])


def side_by_side(one: Target, other: Target, seconds: float) -> tuple[list[float], list[float]]:
    """Rates of both, measured in turns."""
    one.rate(0.5), other.rate(0.5)
    pairs = [(one.rate(seconds), other.rate(seconds)) for _ in range(TURNS)]
    return [a for a, _ in pairs], [b for _, b in pairs]
