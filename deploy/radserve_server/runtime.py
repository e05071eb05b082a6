"""The private folder that a running server needs: backends, and nothing else."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from radserve_server.discover import STUB

if TYPE_CHECKING:
    from radserve_server.discover import TritonInstallation

_OUR_BACKENDS = Path(__file__).parent / "backends"


@dataclass(frozen=True)
class Runtime:
    """Names that belong to one server process alone; nothing exists yet.

    They are chosen before anything is made, so that whoever interrupts the
    making can still remove all of it.

    Attributes:
        token: Random, part of every name.
    """

    token: str = field(default_factory=lambda: f"{os.getpid()}_{secrets.token_hex(4)}")

    @property
    def folder(self) -> Path:
        """The private folder."""
        return Path(tempfile.gettempdir()) / f"radserve_{self.token}"

    @property
    def shared_memory_prefix(self) -> str:
        """How all shared-memory regions of this server's stubs begin."""
        return f"radserve_{self.token}_"

    def prepare(self, triton: TritonInstallation) -> Path:
        """Make the folder of backends.

        Args:
            triton: The server that will use it.

        Returns:
            The folder for ``--backend-directory``.

        Raises:
            OSError: It cannot be written.
        """
        self.folder.mkdir(mode=0o700)
        if triton.has_onnxruntime:
            return triton.backends
        backends = self.folder / "backends"
        # Copies: Triton refuses a library that is a link out of the backend's folder.
        shutil.copytree(triton.backends / "python", backends / "python")
        shutil.copy(triton.stub, backends / "python" / STUB)
        (backends / "python" / STUB).chmod(0o700)
        shutil.copytree(_OUR_BACKENDS / "onnxruntime", backends / "onnxruntime", ignore=_ignored)
        return backends

    def remove(self) -> None:
        """Remove the folder and any shared-memory region left behind."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for region in Path("/dev/shm").glob(f"{self.shared_memory_prefix}*"):  # noqa: S108 - where POSIX shm lives
            region.unlink(missing_ok=True)


def _ignored(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__"]
