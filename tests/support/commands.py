"""The ``radserve`` command, and modules of the tests, as processes of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess

RADSERVE = (sys.executable, "-c", "from radserve.cli import main; main()")

_TESTS = Path(__file__).parents[1]


def program(module: str, *arguments: object) -> list[str]:
    """The command that runs a module of the tests, with Python's own path and the tests' folder."""
    boot = f"import runpy, sys; sys.path.insert(0, {str(_TESTS)!r}); runpy.run_module({module!r}, run_name='__main__')"
    return [sys.executable, "-c", boot, *map(str, arguments)]


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What it printed, up to the line with a text."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    pytest.fail(f"it ended with {process.wait()} before {text!r}:\n{seen}{process.communicate()[1] or ''}")
