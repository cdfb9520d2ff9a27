"""The PostgreSQL of the tests: there is one on every machine."""

import os
import pwd
import shutil
from pathlib import Path

import psycopg
import pytest

from tests import postgres


def test_a_machine_without_postgresql_runs_the_one_of_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    known = pwd.getpwnam

    def unknown(name: str) -> pwd.struct_passwd:
        return known({"postgres": "no such user"}.get(name, name))

    monkeypatch.setattr(postgres, "DEBIAN", Path("/nowhere"))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with postgres.cluster() as url, psycopg.connect(f"{url}/postgres") as connection:
        assert connection.info.server_version >= 18_00_00
