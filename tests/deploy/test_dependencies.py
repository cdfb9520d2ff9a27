"""Dependencies, row I3: pinned by hash, audited where that can be done, and listed in a bill of materials."""

import json
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.txt", "requirements-dev.txt")
PINNED = re.compile(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+) \\$", re.MULTILINE)


def pinned(lock: str = "requirements.txt") -> dict[str, str]:
    return dict(PINNED.findall((ROOT / lock).read_text()))


@pytest.mark.parametrize("lock", [*LOCKS, "requirements-fuzz.txt"])
def test_i3_every_dependency_is_pinned_by_hash_and_names_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    entries = [entry for entry in re.split(r"\n(?=\S)", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)) if entry]
    assert len(entries) == len(pinned(lock)) > 0
    for entry in entries:
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text and "--trusted-host" not in text


def test_i3_what_the_service_runs_is_what_was_tested() -> None:
    of_service, of_tests = (pinned(lock) for lock in LOCKS)
    assert of_service.items() <= of_tests.items()


def test_i3_a_tampered_wheel_is_not_installed(tmp_path: Path) -> None:
    version = pinned()["schedule"]
    wheel = tmp_path / f"schedule-{version}-py3-none-any.whl"
    about = f"schedule-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as tampered:
        tampered.writestr("schedule/__init__.py", "raise SystemExit('tampered')")
        tampered.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: schedule\nVersion: {version}\n")
        tampered.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        tampered.writestr(f"{about}/RECORD", "")
    [entry] = re.findall(r"^schedule==.*?(?=^\S)", (ROOT / "requirements.txt").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "lock").write_text(entry)
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", tmp_path, "--target"]
    done = [
        subprocess.run([*command, tmp_path / "there", *how], capture_output=True, text=True, check=False)
        for how in (["--require-hashes", "-r", tmp_path / "lock"], [f"schedule=={version}"])
    ]
    assert [each.returncode for each in done] == [1, 0], "without the hash it is a good wheel"
    assert "DO NOT MATCH THE HASHES" in done[0].stderr
    assert "--require-hashes -r requirements-dev.txt" in (ROOT / "Makefile").read_text()


@contextmanager
def advisories(vulnerable: str | None) -> Iterator[str]:
    """Something that answers as OSV does: one package has a vulnerability, the others none."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            affected = {"package": {"name": asked, "ecosystem": "PyPI"}}
            vulnerability: dict[str, Any] = {"id": "CANARY-1", "affected": [affected]}
            body = json.dumps({"vulns": [vulnerability]} if asked == vulnerable else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()


def audit(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / ".ci" / "audit", url], capture_output=True, text=True, check=False, timeout=60)


def test_i3_a_known_vulnerability_fails_the_lint_and_none_does_not() -> None:
    with advisories("aiohttp") as url:
        found = audit(url)
    assert (found.returncode, "CANARY-1" in found.stdout, "aiohttp" in found.stdout) == (1, True, True)
    with advisories(None) as url:
        clean = audit(url)
    assert (clean.returncode, clean.stdout) == (0, "no known vulnerabilities in what is pinned\n")


def test_i3_where_the_advisory_service_is_out_of_reach_the_lint_says_so_and_goes_on() -> None:
    done = audit("http://127.0.0.1:1/v1/query")
    assert done.returncode == 0
    assert "NOT AUDITED" in done.stdout and "Traceback" not in done.stdout + done.stderr


def test_i3_the_bill_of_materials_lists_what_the_service_is_made_of(tmp_path: Path) -> None:
    """As `make sbom` makes it."""
    [command] = re.findall(r"cyclonedx-py (.*) -o sbom.json (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    program = Path(sys.executable).with_name("cyclonedx-py")
    made = tmp_path / "sbom.json"
    subprocess.run([program, *command[0].split(), "-o", made, *command[1].split()], cwd=ROOT, check=True)
    bill = json.loads(made.read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "synposter-accounts-server")
    assert {part["name"]: part["version"] for part in bill["components"]} == pinned()
    for part in bill["components"]:
        assert part["purl"].startswith(f"pkg:pypi/{part['name']}@")
        hashes = [found for where in part["externalReferences"] for found in where.get("hashes", [])]
        assert {found["alg"] for found in hashes} == {"SHA-256"}, part["name"]
