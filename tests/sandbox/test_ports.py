"""Free ports: what one process is given, no other is."""

import socket
import subprocess
import sys

from sandbox.ports import free_port, is_free

ASK = "from sandbox.ports import free_port; print(flush=True); input(); print(*(free_port() for _ in range(200)))"


def test_processes_that_ask_at_once_are_never_given_the_same_port() -> None:
    command = [sys.executable, "-c", ASK]
    asking = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in asking:
        assert process.stdout is not None and process.stdout.readline() == "\n", "it is ready"
    for process in asking:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    given = [port for process in asking for port in process.communicate(timeout=60)[0].split()]
    assert len(given) == len(set(given)) == 600


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert not is_free(taken.getsockname()[1])
    assert is_free(free_port())
