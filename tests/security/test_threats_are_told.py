"""The threat table of docs/security.md: every row is there, and names tests that exist or says why there is none."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "security.md"
ROWS = {"A": 14, "B": 6, "C": 6, "D": 9, "E": 8, "F": 8, "G": 5, "H": 6, "I": 4}
"""How many rows each part of the threat model has."""
IDS = {f"{part}{number}" for part, last in ROWS.items() for number in range(1, last + 1)}
NO_TEST = "none: "


def table() -> Iterator[tuple[str, list[str]]]:
    for line in TABLE.read_text().splitlines():
        if found := re.match(r"\| ([A-I]\d+) \|", line):
            yield found[1], [cell.strip() for cell in line.strip("|").split("|")]


def functions() -> dict[str, Path]:
    """Every test function with its file."""
    return {
        node.name: file
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


CELLS = dict(table())
TESTS = functions()


def test_every_row_of_the_threat_model_is_told_of_once() -> None:
    assert sorted(row for row, _ in table()) == sorted(IDS)


@pytest.mark.parametrize("row", sorted(CELLS))
def test_each_row_names_tests_that_exist_or_says_why_there_is_none(row: str) -> None:
    cells = CELLS[row]
    assert len(cells) == 4 and all(cells)
    names = re.findall(r"`((?:test_|tests/)[^`]+)`", cells[-1])
    assert names or cells[-1].startswith(NO_TEST), "neither a test nor a reason"
    for name in names:
        if name.startswith("tests/"):
            assert (ROOT / name).exists(), name
        else:
            assert any(test.startswith(name.removesuffix("…")) for test in TESTS), name


def test_each_test_that_is_called_after_a_row_is_of_a_row_that_has_tests() -> None:
    called = {found[1].upper() for name in TESTS if (found := re.match(r"test_([a-i]\d+)_", name))}
    assert called <= {row for row, cells in CELLS.items() if not cells[-1].startswith(NO_TEST)}
