"""A program under a guard: whatever happens to this process, nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING

from radserve_server import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_GUARD_S = 10.0
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """Text with its control characters escaped: one line of a log stays one line."""
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


class Guarded:
    """One run of a program.

    Args:
        folder: The folder that it works in; removed when it has ended.
        prefix: How the shared-memory regions begin that are removed with it.
        drain_s: How long it may take to end once it was asked to.
        on_line: Called with each line that it writes, from another thread.
        on_end: Called when it has ended, from another thread.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        *,
        drain_s: float,
        on_line: Callable[[str], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._folder = folder
        self._prefix = prefix
        self._drain_s = drain_s
        self._on_line = on_line
        self._on_end = on_end
        self._guard: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._watcher: threading.Thread | None = None
        self.ended = threading.Event()
        """Set when it has ended, by itself or not."""
        self.pid = 0
        """Its process id."""

    def spawn(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        output: int | IO[bytes] = subprocess.PIPE,
    ) -> None:
        """Start it; return as soon as the process exists.

        Args:
            command: The program and its arguments.
            environment: All its variables.
            output: Where its standard output goes, if not where its standard error does: to ``on_line``.

        Raises:
            OSError: It cannot be started.
        """
        # Should anything below be interrupted, closing this socket ends the guard and all under it.
        self._control, theirs = socket.socketpair()
        with theirs:
            script = [sys.executable, "-ISu", guard.__file__, str(self._folder), self._prefix, str(self._drain_s)]
            self._guard = subprocess.Popen(  # noqa: S603 - ourselves
                [*script, *command],
                cwd=self._folder,  # a stub's Python searches its working directory first
                env=environment,
                stdin=theirs.fileno(),
                stdout=output,
                stderr=subprocess.STDOUT if output == subprocess.PIPE else subprocess.PIPE,
                start_new_session=True,  # Ctrl-C in a terminal is for us, not for it
            )
        self._control.settimeout(_GUARD_S)
        self.pid = int(self._control.recv(32) or 0)
        self._watcher = threading.Thread(target=self._watch, name="radserve-guarded", daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        assert self._guard is not None  # noqa: S101 - started by spawn, which sets it
        reader = threading.Thread(target=self._read, name="radserve-guarded-log", daemon=True)
        reader.start()
        if self._guard.wait() < 0 and self.pid:
            # The guard itself was killed; the program died with it, what it started may not have.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        reader.join(_GUARD_S)
        if self._on_end is not None:
            self._on_end()
        self.ended.set()

    def _read(self) -> None:
        assert self._guard is not None  # noqa: S101 - started by spawn, which sets it
        stream = self._guard.stdout or self._guard.stderr
        assert stream is not None  # noqa: S101 - one of them is a pipe
        with stream:
            for raw in stream:
                if self._on_line is not None:
                    self._on_line(one_line(raw.decode("utf-8", "replace").rstrip("\r\n")))

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._guard is not None and self._guard.poll() is None

    def is_up(self) -> None:
        """Tell the guard that the program has made in /tmp what it makes there."""
        self._send(guard.READY)

    def terminate(self) -> None:
        """Ask it to end; the guard kills it when its time is up."""
        self._send(guard.TERMINATE)

    def _send(self, message: bytes) -> None:
        if self._control is not None:
            with contextlib.suppress(OSError):  # it ended just now
                self._control.sendall(message)

    def kill(self) -> None:
        """End it and all it started, at once."""
        if self._control is not None:
            self._control.close()
        if self._guard is not None:
            try:
                self._guard.wait(_GUARD_S)
            except subprocess.TimeoutExpired:
                self._guard.kill()
                self._guard.wait()
        if self._watcher is not None:
            self._watcher.join(_GUARD_S)

    def received(self) -> signal.Signals | None:
        """The signal that ended it; None if there was none."""
        code = self.code
        # What ended the guard itself is negative; what ended the program, it tells as a shell does.
        number = -code if code is not None and code < 0 else (code or 0) - 128
        with contextlib.suppress(ValueError):
            return signal.Signals(number) if number > 0 else None
        return None

    @property
    def code(self) -> int | None:
        """Its exit status, as a shell tells it; None while it runs."""
        return self._guard.poll() if self._guard is not None else None
