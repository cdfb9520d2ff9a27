"""The house stands as docs/architecture.md draws it: which rooms may know which, and what each may import."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "server"

ROOMS = (
    "accounts",
    "platforms",
    "storage",
    "rpc",
    "web",
    "config",
    "scheduler",
    "telemetry",
    "app",
    "parts",
    "process",
    "collector",
    "commands",
    "__main__",
)
MAY_USE = {
    "accounts": set(),
    "platforms": {"accounts"},
    "storage": {"accounts"},
    "rpc": {"accounts"},
    "web": {"accounts"},
    "config": {"accounts"},
    "scheduler": {"accounts"},
    "telemetry": {"accounts"},
    "process": set(),
    "collector": set(),
    "app": set(ROOMS),
    "parts": set(ROOMS),
    "commands": set(ROOMS),
    "__main__": set(ROOMS),
}
ONLY_IN = {
    "peewee": {"storage"},
    "playhouse": {"storage"},
    "cysqlite": {"storage"},
    "grpc": {"rpc", "app"},
    "grpc_status": {"rpc"},
    "requests": {"platforms"},
    "requests_oauthlib": {"platforms"},
    "oauthlib": {"platforms"},
    "aiohttp": {"platforms", "web"},
    "schedule": {"scheduler"},
    "prometheus_client": {"telemetry"},
    "structlog": {"telemetry"},
    "pydantic": {"config"},
    "pydantic_settings": {"config"},
    "sandbox": set(),
}


def room_of(file: Path) -> str:
    return file.relative_to(SERVER).parts[0].removesuffix(".py")


def imports_of(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(file for file in SERVER.rglob("*.py") if file != SERVER / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_arrow_goes_the_wrong_way(file: Path) -> None:
    room = room_of(file)
    for name in imports_of(file):
        top, *rest = name.split(".")
        if top == "server" and rest:
            assert rest[0] == room or rest[0] in MAY_USE[room], f"{room} must not import {name}"
        if top in ONLY_IN:
            assert room in ONLY_IN[top], f"{top} is not for {room}"
        if room == "accounts":
            assert top in sys.stdlib_module_names | {"server"}, f"the domain must not import {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_each_file_says_its_job_first(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text())), f"{file} has no docstring"


@pytest.mark.parametrize("room", [room for room in ROOMS if (SERVER / room).is_dir()])
def test_the_drawing_of_the_house_names_each_file_of_a_room(room: str) -> None:
    [line] = re.findall(rf"^\| `{room}/` \| (.*) \|$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    files = {file.stem for file in (SERVER / room).glob("*.py")} - {"__init__"}
    assert files == set(re.findall(r"`([a-z_]+)`", line))


def test_generated_code_is_what_the_protos_generate(tmp_path: Path) -> None:
    protos = sorted(str(path) for path in (ROOT / "protos").rglob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "protos")]
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([*command, *outputs, *protos], check=True)
    fresh = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.py*")}
    committed = {
        path.relative_to(ROOT / "generated"): path.read_text()
        for path in (ROOT / "generated").rglob("*.py*")
        if "__pycache__" not in path.parts
    }
    assert fresh == committed, "run: make generate"


def test_the_protos_pass_buf_lint() -> None:
    buf = shutil.which("buf", path=str(Path(sys.executable).parent))
    assert buf, "buf-bin is a development dependency"
    done = subprocess.run([buf, "lint"], cwd=ROOT / "protos", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
