"""Code that a user writes passes pyright's strict mode; ``make lint`` shows the same of ``mypy --strict``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "typing"


def check(*files: Path) -> list[str]:
    """What pyright says of files."""
    command = [
        sys.executable,
        "-m",
        "pyright",
        "--outputjson",
        "--pythonpath",
        sys.executable,
        "--pythonversion",
        "3.10",
    ]
    done = subprocess.run([*command, *map(str, files)], check=False, capture_output=True, text=True, timeout=120)  # noqa: S603 - pyright
    if "npm" in done.stderr and not done.stdout:
        pytest.skip(f"pyright's first run fetches it from npm's registry: {done.stderr.strip().splitlines()[-1]}")
    assert done.stdout.startswith("{"), done.stderr
    return [f"{one['severity']}: {one['message']}" for one in json.loads(done.stdout)["generalDiagnostics"]]


def test_what_users_write_passes_pyright() -> None:
    files = sorted(FOLDER.glob("*.py"))
    assert all(file.read_text().startswith("# pyright: strict\n") for file in files)
    assert check(*files) == []


def test_pyright_sees_a_wrong_call(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text('from radserve import Client\n\nClient("localhost:8001").model("m").predict(1, priority="stat")\n')
    found = check(wrong)
    assert len(found) == 2
    assert "error" in found[0]
