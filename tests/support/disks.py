"""Small disks of memory: mounted where one process alone sees them, reached through its folder in /proc."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILLER = ".filler"


class Disk:
    """A disk, as ``small_disk`` mounts it.

    Attributes:
        path: Its root, for every process of this user.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def free(self) -> int:
        """Bytes that can be written."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Leave no more than so many bytes, which the disk counts in pages."""
        self.make_room()
        if (size := self.free - leave) > 0:
            with (self.path / _FILLER).open("wb") as filler:
                os.posix_fallocate(filler.fileno(), 0, size)

    def make_room(self) -> None:
        """Take back what ``fill`` took."""
        (self.path / _FILLER).unlink(missing_ok=True)


def unshare(*script: str) -> list[str]:
    """The begin of a command that runs with mounts of its own, made by shell commands; skips where none can be made."""
    program = shutil.which("unshare")
    if program is None:
        pytest.skip("mounts of its own need util-linux's unshare")
    command = [program, "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    probe = [*command, "mount", "-t", "tmpfs", "none", "/mnt"]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)  # noqa: S603 - fixed program
    if tried.returncode:
        pytest.skip(f"this machine lets nobody mount: {tried.stderr.strip()}")
    return [*command, "/bin/sh", "-ec", "\n".join([*script, 'exec "$@"']), "sh"]


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Disk]:
    """A disk of so many bytes, over an empty folder in the sight of a process that waits."""
    folder.mkdir()
    command = [*unshare(f"mount -t tmpfs -o size={size} none '{folder}'"), "/bin/sh", "-c", "echo mounted; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:  # noqa: S603 - fixed program
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == "mounted\n"
        yield Disk(Path(f"/proc/{holder.pid}/root{folder}"))
        holder.stdin.close()


def read_only(*folders: Path) -> list[str]:
    """The begin of a command that runs as user 1000, without a capability; only /tmp and /dev/shm can be written.

    Args:
        folders: Below those, which cannot be written all the same.
    """
    closed = [f"mount --bind '{folder}' '{folder}' && mount -o remount,bind,ro '{folder}'" for folder in folders]
    script = ["mount --bind /tmp /tmp", *closed, "mount -o remount,bind,ro /"]
    return [*unshare(*script), "unshare", "--user", "--map-user=1000", "--map-group=1000"]
