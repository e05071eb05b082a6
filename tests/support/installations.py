"""Copies of the installed Triton, laid out as in /opt/tritonserver, to be damaged."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Protocol

from radserve_server.discover import find_triton

if TYPE_CHECKING:
    from pathlib import Path


class CopyTriton(Protocol):
    """Copies the server; returns the copy's tritonserver."""

    def __call__(self, *, libpython: str | None = None) -> Path:
        """Copy; with ``libpython``, the stub asks for that library (of the same name length)."""


def copy_triton(root: Path, libpython: str | None = None) -> Path:
    """Copy the installed server into a folder; returns its tritonserver."""
    installed = find_triton()
    binary = root / "bin" / "tritonserver"
    binary.parent.mkdir(parents=True)
    shutil.copy(installed.binary.resolve(), binary)
    shutil.copytree(installed.backends / "python", root / "backends" / "python")
    stub = root / "backends" / "python" / installed.stub.name
    shutil.copy(installed.stub, stub)
    if libpython is not None:
        wanted = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0".encode()
        assert len(libpython) == len(wanted)
        stub.write_bytes(stub.read_bytes().replace(wanted, libpython.encode()))
    # The wheel's libraries lie beside it, where the copy does not look.
    (root / "lib").symlink_to(installed.libraries[0])
    return binary
