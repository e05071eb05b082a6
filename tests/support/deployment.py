"""The files of ``deploy/`` as their readers see them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def versions() -> dict[str, str]:
    """``deploy/versions/versions.env``."""
    lines = (DEPLOY / "versions" / "versions.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def tool(name: str) -> str:
    """A development tool: beside the interpreter, or on the PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is not installed: make setup"
    return found


def run(*command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a tool; unless told otherwise it must succeed."""
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)  # noqa: S603 - ours
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def substituted(text: str, values: Mapping[str, str]) -> str:
    """``${NAME}``, ``${NAME:?}`` and ``${NAME:-default}`` as Docker Compose replaces them."""

    def value(found: re.Match[str]) -> str:
        name, operator, default = found.groups()
        if name in values:
            return values[name]
        assert operator == ":-", f"{name} has neither value nor default"
        return str(default)

    return re.sub(r"\$\{(\w+)(?:(:[?-])([^}]*))?\}", value, text)


def compose() -> dict[str, Any]:
    """``deploy/compose.yaml`` with its versions."""
    loaded: dict[str, Any] = yaml.safe_load(substituted((DEPLOY / "compose.yaml").read_text(), versions()))
    return loaded
