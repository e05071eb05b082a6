"""The table of faults in deploy/FAULTS.md: every one has tests that exist and run where the table says."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.deployment import DEPLOY, ROOT

if TYPE_CHECKING:
    from pathlib import Path

_FAULTS = 33
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`((?:, (?:test-full|test|chaos))+)")
_PLACES = {"full": "test-full", "chaos": "chaos"}


class Named(NamedTuple):
    """A test as the table names it.

    Attributes:
        path: Below ``tests``.
        name: Of it.
        where: Which of make's targets run it.
    """

    path: str
    name: str
    where: frozenset[str]


class Row(NamedTuple):
    """One fault.

    Attributes:
        number: Of it.
        fault: Its name.
        seen: What must be seen.
        tests: Those that show it.
        measured: What was measured, or counted.
    """

    number: int
    fault: str
    seen: str
    tests: list[Named]
    measured: str


def read(text: str) -> list[Row]:
    """The rows of the table; every line that begins as one must be one."""
    rows = []
    for line in text.splitlines():
        if not re.match(r"\|\s*\d", line):
            continue
        number, fault, seen, tests, measured = (cell.strip() for cell in line.strip("|").split("|"))
        assert all(_TEST.fullmatch(test) for test in tests.split("<br>")), f"fault {number}: {tests}"
        rows.append(Row(int(number), fault, seen, named(tests), measured))
    return rows


def named(text: str) -> list[Named]:
    """All tests that a text names, in tables or elsewhere."""
    found = (match.groups() for match in _TEST.finditer(text))
    return [Named(path, name, frozenset(where.removeprefix(", ").split(", "))) for path, name, where in found]


@cache
def _functions(path: Path) -> dict[str, tuple[list[ast.expr], list[ast.expr]]]:
    """The tests of a file: of each its own decorators, and the marks of the whole file."""
    module = ast.parse(path.read_text())
    of_all = [
        node.value
        for node in module.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets)
    ]
    bodies = [module.body, *(node.body for node in module.body if isinstance(node, ast.ClassDef))]
    return {
        node.name: (node.decorator_list, of_all)
        for body in bodies
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def _marks(node: ast.AST) -> set[str]:
    return {_PLACES[one.attr] for one in ast.walk(node) if isinstance(one, ast.Attribute) and one.attr in _PLACES}


def places(path: Path, name: str) -> frozenset[str]:
    """Which of make's targets run a test: the mark of a file or a function is all's, that of a parameter its own."""
    own, of_all = _functions(path)[name]
    parameters = [one for one in own if isinstance(one, ast.Call) and ast.unparse(one.func).endswith(".parametrize")]
    certain = {place for one in (*of_all, *own) if one not in parameters for place in _marks(one)}
    return frozenset(certain or {"test"} | {place for one in parameters for place in _marks(one)})


_TEXT = (DEPLOY / "FAULTS.md").read_text()


def test_no_fault_is_forgotten() -> None:
    rows = read(_TEXT)
    assert [row.number for row in rows] == list(range(1, _FAULTS + 1))
    assert all(row.fault and row.seen and row.tests for row in rows)


def test_every_row_of_every_table_has_its_figure() -> None:
    assert all(re.search(r"\d", row.measured) for row in read(_TEXT))
    assert not re.search(r"\|\s*\|$", _TEXT, re.MULTILINE)


@pytest.mark.parametrize("test", dict.fromkeys(named(_TEXT)), ids=lambda test: f"{test.path}::{test.name}")
def test_every_test_is_there_and_runs_where_the_table_says(test: Named) -> None:
    file = ROOT / "tests" / test.path
    assert file.is_file()
    assert test.name in _functions(file)
    assert places(file, test.name) == test.where


def test_whatever_names_a_test_says_where_it_runs() -> None:
    assert _TEXT.count(".py::") == len(named(_TEXT))


def test_every_test_of_chaos_is_in_the_table() -> None:
    there = {(test.path, test.name) for test in named(_TEXT)}
    for file in sorted((ROOT / "tests" / "integration").glob("test_*.py")):
        for name in _functions(file):
            if "chaos" in places(file, name):
                assert (f"integration/{file.name}", name) in there


@pytest.mark.parametrize(
    "line",
    ["| 1 | a | b | | |", "| 1 | a | b | `integration/test_a.py::test_b` | |", "| 1 | a | b | test_b, test | |"],
    ids=["no test", "no place", "no file"],
)
def test_a_row_without_a_test_is_no_row(line: str) -> None:
    with pytest.raises(AssertionError, match="fault 1"):
        read(line)


def test_marks_are_read_as_pytest_does(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    head = "import pytest\n"
    file.write_text(
        f"{head}def test_a(): ...\n"
        "@pytest.mark.full\ndef test_b(): ...\n"
        "@pytest.mark.parametrize('x', [1, pytest.param(2, marks=pytest.mark.chaos)])\ndef test_c(x): ...\n"
        "@pytest.mark.chaos\n@pytest.mark.parametrize('x', [1])\ndef test_d(x): ...\n"
    )
    whole = tmp_path / "test_whole.py"
    whole.write_text(f"{head}pytestmark = [pytest.mark.full]\ndef test_e(): ...\n")
    found = [places(file, f"test_{letter}") for letter in "abcd"]
    assert [*found, places(whole, "test_e")] == [{"test"}, {"test-full"}, {"test", "chaos"}, {"chaos"}, {"test-full"}]
