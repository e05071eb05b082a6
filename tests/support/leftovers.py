"""What a server may have left behind."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path


def leftovers(pid: int | None = None) -> list[str]:
    """Processes, folders and shared-memory regions of the servers that a process started.

    Args:
        pid: The process that started them; None is this one.
    """
    folders = (tempfile.gettempdir(), "/dev/shm")  # noqa: S108 - where POSIX shm lives
    mark = f"radserve_{pid or os.getpid()}_"
    found = [str(path) for folder in folders for path in Path(folder).glob(f"{mark}*")]
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if mark in command:
                found.append(f"process {entry.name}: {command}")
    return found


def children(pid: int | None = None) -> set[int]:
    """The processes that a process, this one by default, has started and not yet buried."""
    threads = Path(f"/proc/{pid or os.getpid()}/task").glob("*/children")
    found: set[int] = set()
    for thread in threads:
        with suppress(OSError):  # a thread that ended meanwhile
            found.update(map(int, thread.read_text().split()))
    return found


def wait_until_gone(pid: int, timeout_s: float = 20) -> list[str]:
    """What is still there when nothing is left or the time is up."""
    deadline = time.monotonic() + timeout_s
    while (found := leftovers(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
