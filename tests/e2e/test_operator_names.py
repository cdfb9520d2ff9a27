"""Who operators are in the audit: whom the system knows, whatever their environment says."""

import os
import pwd

import pytest

from server.commands.operate import operator


def test_an_operator_does_not_choose_the_name_that_the_audit_has(monkeypatch: pytest.MonkeyPatch) -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "mallory")
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert operator() == name
    monkeypatch.setenv("SUDO_USER", "ada")
    assert operator() == f"{name} (sudo by ada)"
    monkeypatch.setenv("SUDO_USER", "ada) root (")
    assert operator() == name
