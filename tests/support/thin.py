"""The SDK as a hospital gets it: the wheel, alone in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"


def interpreter(version: str) -> str | None:
    """A Python of such a version, for example ``"3.12"``; None where this machine has none."""
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    # A shim of pyenv is there for every version, and works for the chosen one alone.
    found = [shutil.which(f"python{version}"), *map(str, _PYENV.glob(f"{version}.*/bin/python"))]
    return next((python for python in found if python is not None and _runs(python)), None)


def build_wheel(folder: Path) -> Path:
    """Build the distribution from this checkout."""
    _run(sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--no-build-isolation", "--out-dir", folder, ROOT)
    (wheel,) = folder.glob("radserve-*.whl")
    return wheel


def install(wheel: Path, folder: Path, *, python: str = sys.executable, requirements: tuple[str, ...] = ()) -> Path:
    """Install a wheel, and nothing but what it asks for.

    Args:
        wheel: Of radserve.
        folder: Where the environment is made.
        python: For which interpreter.
        requirements: Further ones, such as ``"numpy<2"``.

    Returns:
        The environment's interpreter.
    """
    _run(sys.executable, "-m", "uv", "venv", "--quiet", "--python", python, folder)
    inside = folder / "bin" / "python"
    _run(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", inside, wheel, *requirements)
    return inside


def _runs(python: str) -> bool:
    return subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0  # noqa: S603 - an interpreter


def _run(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)  # noqa: S603 - uv
    assert done.returncode == 0, done.stderr
