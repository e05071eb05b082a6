"""The Python processes ("stubs") in which a Triton runs its Python models."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

_COMMAND = "triton_python_b"  # the kernel keeps 15 characters
_ZOMBIE = "Z"
_FROZEN = "T"
_STOPPED = "Tt"


@dataclass(frozen=True)
class Stub:
    """One stub.

    Attributes:
        pid: Its process id.
        state: The kernel's letter: S sleeping, R running, T stopped, Z dead.
        model: The model folder's name; empty once it is dead.
        region: The name of its shared-memory region; empty once it is dead.
    """

    pid: int
    state: str
    model: str
    region: str

    @property
    def dead(self) -> bool:
        """Whether it has ended (the server does not reap it)."""
        return self.state == _ZOMBIE

    @property
    def frozen(self) -> bool:
        """Whether it is frozen by a signal."""
        return self.state == _FROZEN

    @property
    def stopped(self) -> bool:
        """Whether it is frozen by a signal or a debugger."""
        return self.state in _STOPPED


def stubs_of(server_pid: int, repository: Path) -> list[Stub]:
    """The stubs of a server, dead ones included.

    Args:
        server_pid: Process id of tritonserver.
        repository: Its model repository.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            if int(parent) != server_pid or name != _COMMAND:
                continue
            # triton_python_backend_stub MODEL_PATH SHM_REGION …; nothing for a zombie
            arguments = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:  # it ended while we looked
            continue
        model = region = ""
        if len(arguments) > 2 and Path(arguments[1]).is_relative_to(repository):  # noqa: PLR2004 - see above
            model = Path(arguments[1]).relative_to(repository).parts[0]
            region = arguments[2]
        found.append(Stub(int(entry.name), state, model, region))
    return found


def is_frozen(pid: int) -> bool:
    """Whether a process is frozen by a signal."""
    return _state(pid) == _FROZEN


def is_ill(pid: int) -> bool:
    """Whether a stub has ended, or is frozen by a signal."""
    return _state(pid) in ("", _ZOMBIE, _FROZEN)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it is gone
        return ""


def kill(stub: Stub) -> None:
    """Kill a stub, frozen or not."""
    try:
        os.kill(stub.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def remove_region(stub: Stub) -> None:
    """Remove the shared memory that a dead stub left."""
    if stub.region:
        Path("/dev/shm", stub.region).unlink(missing_ok=True)  # noqa: S108 - where POSIX shm lives
