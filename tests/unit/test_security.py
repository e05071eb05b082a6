"""The page on security names tests that there are, and the floor that its table gives."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from support.deployment import DEPLOY, ROOT
from unit.test_deploy_versions import FLOOR

from radserve_server import deployed

_PAGE = (DEPLOY / "SECURITY.md").read_text(encoding="utf-8")
_THREATS = re.findall(r"^\| (?:\d|all) \| ([A-Z].*?) \|$", _PAGE, re.MULTILINE)
_TESTS = re.findall(r"`(\w+/\w+\.py)::(\w+)`", _PAGE)
_HOLES = re.findall(
    r"^\| (\d{4}) \| (CVE-\d{4}-\d{4,5}) \| (.+?) \| (\d\.\d) \| (\d\d)\.(\d\d) \|$", _PAGE, re.MULTILINE
)


@cache
def _functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("file", "test"), sorted(set(_TESTS)))
def test_a_test_that_is_named_exists(file: str, test: str) -> None:
    assert test in _functions(file)


def test_every_threat_has_a_test() -> None:
    assert len(_THREATS) > 25
    assert [row for row in _THREATS if "::test_" not in row] == []


def test_the_floor_is_what_the_known_holes_ask_for() -> None:
    fixed = [(int(year), int(month)) for *_, year, month in _HOLES]
    assert len(fixed) == len(re.findall("^.*CVE-", _PAGE, re.MULTILINE)) == len({cve for _, cve, *_ in _HOLES}) > 20
    assert max(fixed) == FLOOR == tuple(map(int, deployed.FLOOR_RELEASE.split(".")))
    assert "Why Triton {}.{:02} is the floor".format(*FLOOR) in _PAGE
