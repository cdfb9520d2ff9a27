"""What the rest of the machine can see of a running server (row C4): no core dump, no debugger, no locals."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc.aio
import pytest

from sandbox.local import Local
from sandbox.ports import free_port
from tests.moulds import furnish
from tests.rpc.conftest import ID, bearer

pytestmark = pytest.mark.exec

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


def powerless() -> list[str]:
    """Root may look at everybody; without its capabilities it is a user like any other."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv here (Debian: util-linux)")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


@pytest.fixture
def server(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    """A running server without a sandbox; it has no capabilities, as in production."""
    plain = Local.server_command
    monkeypatch.setattr(Local, "server_command", lambda self, *words: [*powerless(), *plain(self, *words)])
    monkeypatch.setenv("GRPC_TRACE", "all")
    monkeypatch.setenv("GRPC_VERBOSITY", "DEBUG")
    with log.open("wb") as output:
        local = Local(tmp_path / "d", {part: free_port() for part in ("grpc", "http", "sandbox")}, log=output)
        local.write_files()
        furnish(local.config_file)
        local.start_server()
        yield local
        local.stop()


def attempt(code: str, pid: int) -> subprocess.CompletedProcess[str]:
    """What a process of the same user gets."""
    command = [*powerless(), sys.executable, "-c", code, str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


LOOK = "import sys; print(len(open(f'/proc/{sys.argv[1]}/environ', 'rb').read()))"
DESCRIPTORS = "import os, sys; print(os.readlink(f'/proc/{sys.argv[1]}/fd/0'))"


@pytest.mark.parametrize("look", [LOOK, DESCRIPTORS], ids=["environ", "fd"])
def test_a_process_of_the_same_user_cannot_look_into_the_server(server: Local, look: str) -> None:
    with subprocess.Popen([*powerless(), *SLEEPER], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"up\n"
        seen = attempt(look, other.pid)
        other.kill()
    assert seen.returncode == 0, f"of others it can: {seen.stderr}"
    refused = attempt(look, server.pid("server"))
    assert refused.returncode != 0 and "PermissionError" in refused.stderr


def test_a_debugger_of_the_same_user_cannot_attach(server: Local) -> None:
    if shutil.which("gdb") is None:
        pytest.skip("no gdb here (Debian: apt-get install gdb)")
    command = [*powerless(), "gdb", "-p", str(server.pid("server")), "-batch", "-ex", "bt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Operation not permitted" in done.stderr + done.stdout and "#0" not in done.stdout


def test_a_crash_leaves_no_core(server: Local) -> None:
    limits = Path(f"/proc/{server.pid('server')}/limits").read_text()
    [core] = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core[4:6] == ["0", "0"]
    assert not cored(server, signal.SIGABRT)


def test_a_process_that_does_not_forbid_it_does_leave_one(tmp_path: Path) -> None:
    code = "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20)); os.abort()"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.DEVNULL)
    _, status = os.waitpid(child.pid, 0)
    child.returncode = 0
    if not os.WCOREDUMP(status):
        pytest.skip("this system dumps no cores at all")


def cored(local: Local, how: signal.Signals) -> bool:
    process = local._processes.pop("server")
    process.send_signal(how)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -how
    assert os.WTERMSIG(status) == how
    return os.WCOREDUMP(status)


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2], ids=lambda how: how.name)
def test_no_signal_makes_it_print_what_it_holds(server: Local, log: Path, how: signal.Signals) -> None:
    before = log.read_bytes()
    assert not cored(server, how)
    assert log.read_bytes() == before


async def test_grpcs_own_tracing_is_off_whatever_the_environment_says(server: Local, log: Path) -> None:
    async with grpc.aio.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call: Callable[..., object] = channel.unary_unary("/synposter.accounts.v1.AccountService/GetAccount")
        for key in (server.api_key, "a-strangers-key"):
            with pytest.raises(grpc.aio.AioRpcError):
                await call(b"\n$" + ID.encode(), metadata=bearer(key), timeout=10)  # type: ignore[misc]
    assert not any(word in written(log) for word in (server.api_key, "a-strangers-key", "chttp2"))


def written(log: Path) -> str:
    return log.read_text()
