"""Run a server as this process's only child, and leave nothing of it behind.

This file is run as a script by ``radserve_server.process``, with nothing but
the standard library. It ends the server, and every process the server
started, as soon as its standard input (a socket) says so or closes: whatever
happens to the parent, kill -9 included, no process, shared-memory region or
folder stays.

usage: guard.py RUNTIME_FOLDER SHARED_MEMORY_PREFIX DRAIN_S COMMAND…
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TERMINATE = b"t"
"""Sent by the parent: let requests in flight finish, then stop."""
READY = b"r"
"""Sent by the parent: the server is up, what it makes in /tmp is made."""

_SCRATCH = "python_env_*"

_REAP_S = 5.0
_OPEN_FILES = 65_536
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def _allow_connections() -> None:
    """Let the server open as many files as it may: each client is one, and usual shells stop it at 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Scratch:
    """The folders that Triton's Python backends make in /tmp, empty and unused, and leave there when killed."""

    def __init__(self) -> None:
        self._since = time.time() - 1.0  # file systems keep coarser time
        self._found: list[Path] | None = None

    def look(self) -> None:
        """Remember those made since the start; those made later are another server's."""
        if self._found is None:
            found = [(path, path.stat()) for path in Path("/tmp").glob(_SCRATCH)]  # noqa: S108 - where Triton makes them
            self._found = [path for path, stat in found if stat.st_uid == os.getuid() and stat.st_ctime >= self._since]

    def remove(self) -> None:
        """Remove them, if nobody has put anything in."""
        with contextlib.suppress(OSError):  # another server ends at the same time
            self.look()
        for path in self._found or ():
            with contextlib.suppress(OSError):
                path.rmdir()


def _wait(
    server: subprocess.Popen[bytes], control: socket.socket, wake: socket.socket, drain_s: float, scratch: _Scratch
) -> None:
    """Return when the server has ended, or must be killed."""
    deadline: float | None = None
    while server.poll() is None:
        timeout = None if deadline is None else deadline - time.monotonic()
        if timeout is not None and timeout <= 0:
            return
        ready, _, _ = select.select([control, wake], [], [], timeout)
        message = _read(control) if control in ready else None
        told = wake in ready and signal.SIGTERM in wake.recv(64)
        if message == READY:
            with contextlib.suppress(OSError):
                scratch.look()
        elif message not in (None, TERMINATE):
            return
        if deadline is None and (told or message == TERMINATE):
            server.terminate()
            deadline = time.monotonic() + drain_s


def _read(control: socket.socket) -> bytes:
    try:
        return control.recv(1)
    except ConnectionError:  # the parent died with our message unread
        return b""


def _kill_all(server: subprocess.Popen[bytes]) -> None:
    """Kill the server's process group, and reap what it leaves."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    deadline = time.monotonic() + _REAP_S
    with contextlib.suppress(ChildProcessError):  # no children are left
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.01)


def main(folder: str, shared_memory_prefix: str, drain_s: str, *command: str) -> int:
    """Run the command until it ends or is no longer wanted; see the module's text."""
    wake, waker = socket.socketpair()
    waker.settimeout(0)
    signal.set_wakeup_fd(waker.fileno())
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=0)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _allow_connections()
    scratch = _Scratch()
    try:
        server = subprocess.Popen(  # noqa: S603 - the command is the parent's
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # Only this guard outlives the parent; the server must not outlive the guard.
            preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - one thread, no locks
        )
        with contextlib.suppress(OSError):  # the parent is gone: _wait sees it
            control.sendall(f"{server.pid}\n".encode())
        try:
            _wait(server, control, wake, float(drain_s), scratch)
        finally:
            _kill_all(server)
        return server.returncode if server.returncode >= 0 else 128 - server.returncode
    finally:
        scratch.remove()
        shutil.rmtree(folder, ignore_errors=True)
        for region in Path("/dev/shm").glob(f"{shared_memory_prefix}*"):  # noqa: S108 - where POSIX shm lives
            region.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
