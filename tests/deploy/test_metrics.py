"""Alerts and dashboard: whatever they name, the server exports; so neither can rot unnoticed."""

import ast
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.accounts.grants import GrantState
from server.telemetry import GATE_STATES, Metrics

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "dashboard.json"

SELECTOR = re.compile(r"\b(accounts_[a-z_]+)\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!=|!~|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that are not the server's to give."""


def expressions() -> dict[str, str]:
    """Every PromQL expression of deploy/, by where it stands."""
    found = {}
    for rule in ALERTS.read_text().split("- alert: ")[1:]:
        [expression] = re.findall(r"expr: (?:>-\s+)?(.*?)\n +(?:for|labels):", rule, re.DOTALL)
        found[rule.split()[0]] = expression
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']}: {target['legendFormat']}"] = target["expr"]
    return found


def exported() -> dict[str, set[str]]:
    """The labels of each sample name that the server can export, whether or not it has a value yet."""
    registry = Metrics().registry
    return {name: set(collector._labelnames) for name, collector in registry._names_to_collectors.items()}  # type: ignore[attr-defined]


def values() -> set[str]:
    """Every text constant of the server: a label's value is one of them."""
    constants = set(GATE_STATES) | set(GrantState)
    for file in (ROOT / "server").rglob("*.py"):
        constants |= {
            node.value
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
    return constants


EXPRESSIONS = expressions()


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for name, matchers in SELECTOR.findall(expression):
        yield name, MATCHER.findall(matchers)


def test_every_alert_and_every_panel_is_looked_at() -> None:
    assert len(EXPRESSIONS) == ALERTS.read_text().count("expr:") + DASHBOARD.read_text().count('"expr":')
    assert sum(len(list(selectors(each))) for each in EXPRESSIONS.values()) >= len(EXPRESSIONS) - 1  # but for `up`


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_each_metric_label_and_value_that_an_alert_or_a_panel_names_is_exported(where: str) -> None:
    expression, samples, known = EXPRESSIONS[where], exported(), values()
    labels = set(OF_PROMETHEUS)
    for name, matchers in selectors(expression):
        assert name in samples, f"the server exports no {name}"
        labels |= samples[name]
        for label, value in matchers:
            assert label in samples[name], f"{name} has no label {label}"
            assert set(value.split("|")) <= known, f"{name} is never {label}={value!r}"
    for group in GROUPING.findall(expression):
        assert {label.strip() for label in group.split(",")} <= labels, f"nothing here has all the labels of ({group})"


NAMES = {collector._name for collector in Metrics().registry._names_to_collectors.values()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_metric_is_told_of_in_the_operations_manual(name: str) -> None:
    assert f"`{name}" in (ROOT / "docs" / "operations.md").read_text()


def test_the_alerts_are_sound_promql() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not os.environ.get("CI"), "promtool is missing (Debian: apt-get install prometheus)"
        pytest.skip("promtool is not here (Debian: apt-get install prometheus)")
    done = subprocess.run([promtool, "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
