"""The ``radserve`` command as a process of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess

RADSERVE = (sys.executable, "-c", "from radserve.cli import main; main()")


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What it printed, up to the line with a text."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    pytest.fail(f"it ended with {process.wait()} before {text!r}:\n{seen}{process.communicate()[1] or ''}")
