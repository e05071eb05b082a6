"""Import rules that import-linter cannot see: what is taken from a package it may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def imported(folder: str) -> set[tuple[str, str, str]]:
    """File, module and name of every ``from module import name`` below a folder."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {(path.relative_to(ROOT / folder).as_posix(), node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {(path.relative_to(ROOT / folder).as_posix(), alias.name, "") for alias in node.names}
    return found


def test_the_codec_takes_messages_alone_from_tritonclient() -> None:
    taken = {(module, name) for _, module, name in imported("client/radserve/_codec") if module.startswith("triton")}
    assert taken == {("tritonclient.grpc", "service_pb2"), ("tritonclient.grpc", "model_config_pb2")}


def test_only_the_evaluation_takes_the_client() -> None:
    found = imported("export/radserve_export")
    plain = {"", "contracts", "errors", "sources"}
    users = {file for file, module, name in found if module == "radserve" and name not in plain}
    assert {file.partition("/")[0] for file in users} == {"evaluate"}


def test_onnxruntime_leaves_nothing_in_the_home_folder_of_who_exports(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": ""}
    subprocess.run([sys.executable, "-c", "import radserve_export.graphs.checked"], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
