"""What runs inside Triton's stub imports numpy, Triton's utilities and the one library it exists for."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVED = [
    *(ROOT / "model_repository").rglob("*.py"),
    *(ROOT / "deploy" / "radserve_server" / "backends").rglob("*.py"),
]
COMMON = {"numpy", "triton_python_backend_utils"} | sys.stdlib_module_names


@pytest.mark.parametrize("path", SERVED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_one_library_of_its_own(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").partition(".")[0])
    assert len(imported - COMMON) == 1, imported - COMMON


def test_there_is_something_to_look_at() -> None:
    assert {path.parts[-2] for path in SERVED} >= {"onnxruntime", "1"}
