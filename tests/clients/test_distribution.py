"""The distribution stands on its own: what is built holds real files, and works without this repository."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Without site (-S) the editable install of this repository is not there: only the wheel and its dependencies are.
USE = """
import sys
sys.path[:0] = sys.argv[1:3]
import synposter.accounts.v1.account_service_pb2 as generated
import synposter_accounts
wheel = sys.argv[1]
assert generated.__file__.startswith(wheel) and synposter_accounts.__file__.startswith(wheel)
try:
    synposter_accounts.Accounts("127.0.0.1:1", "key").revoke("1")
except synposter_accounts.ServiceUnreachable:
    print("it called")
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and an sdist, built from a clean copy that keeps the link to the generated modules."""
    folder = tmp_path_factory.mktemp("repository")
    clean = shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__")
    for source in ("clients/python", "generated"):
        shutil.copytree(ROOT / source, folder / source, symlinks=True, ignore=clean)
    assert (folder / "clients/python/synposter").is_symlink()
    built = tmp_path_factory.mktemp("built")
    wheel = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), "."]
    sdist = ["-c", f"from setuptools import build_meta; build_meta.build_sdist({str(built)!r})"]
    for command in (wheel, sdist):
        subprocess.run([sys.executable, *command], cwd=folder / "clients/python", check=True, capture_output=True)
    return built


def generated() -> set[str]:
    """The generated modules and their type stubs, as they are named in the import path."""
    files = (ROOT / "generated").rglob("*.py*")
    return {str(file.relative_to(ROOT / "generated")) for file in files if "__pycache__" not in file.parts}


def test_the_wheel_alone_with_its_dependencies_calls_the_service(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("synposter_accounts-*.whl")
    shutil.unpack_archive(wheel, tmp_path, "zip")
    for name in {"synposter_accounts/py.typed"} | generated():
        assert (tmp_path / name).is_file(), name
    dependencies = Path(sys.modules["grpc"].__file__ or "").parents[1]
    command = [sys.executable, "-I", "-S", "-c", USE, str(tmp_path), str(dependencies)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "it called\n", done.stderr


def test_there_is_something_to_carry() -> None:
    assert "synposter/accounts/v1/account_service_pb2_grpc.py" in generated()


def test_the_sdist_holds_the_generated_modules_as_files(built: Path) -> None:
    [sdist] = built.glob("synposter_accounts-*.tar.gz")
    with tarfile.open(sdist) as archive:
        kinds = {member.name.partition("/")[2]: member.isfile() for member in archive if not member.isdir()}
    assert all(kinds.values())
    assert generated() <= set(kinds)
