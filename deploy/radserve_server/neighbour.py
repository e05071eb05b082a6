"""A program that runs beside Triton, as Envoy and Prometheus do: started, told why it ended, stopped."""

from __future__ import annotations

import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections import deque
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from radserve.errors import ServerStartError
from radserve_server.guarded import Guarded
from radserve_server.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEPT_LINES = 50
_END_S = 5.0
_CALL_S = 5.0
_OPENER = build_opener(ProxyHandler({}))  # http_proxy is for elsewhere


def program(name: str) -> Path | None:
    """A program beside this interpreter, or on the PATH; None if it is nowhere."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    return Path(found) if found else None


def page(url: str) -> str:
    """What is at an address of this machine; empty while nothing answers."""
    try:
        with _OPENER.open(url, timeout=_CALL_S) as answer:
            return str(answer.read(), "utf-8")
    except (URLError, OSError, HTTPException):  # the last where it ends in the midst of its answer
        return ""


class Neighbour(ABC):
    """A program that works in a private folder.

    Args:
        folder: Is written at each start, and removed when the program has ended.
    """

    name: str
    """What people call it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._guarded: Guarded | None = None

    @abstractmethod
    def write(self) -> None:
        """Write what it needs into its folder."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The program and its arguments."""

    @property
    def output(self) -> Path | None:
        """Where its standard output is kept; None drops it."""
        return None

    @property
    def pid(self) -> int:
        """Its process id; 0 if it does not run."""
        return self._guarded.pid if self._guarded is not None and self._guarded.running else 0

    def start(self) -> None:
        """Run it, in place of the one that ran; return as soon as the process exists.

        Raises:
            ServerStartError: Its folder cannot be written, or it cannot be started.
        """
        self.stop()
        drop = Path(os.devnull)
        self._guarded = Guarded(self.folder, Runtime().shared_memory_prefix, drain_s=_END_S, on_line=self._lines.append)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.write()
            with (self.output or drop).open("ab") as output:
                self._guarded.spawn(self.command(), os.environ, output=output)
        except OSError as error:
            self.stop()
            msg = f"{self.name} cannot be started in {self.folder}: {error.strerror or error}"
            raise ServerStartError(msg) from error
        except BaseException:
            self.stop()
            raise
        self._guarded.is_up()

    def stop(self) -> None:
        """End it; does nothing if it does not run."""
        if self._guarded is None:
            return
        if self._guarded.running:
            self._guarded.terminate()
            self._guarded.ended.wait(_END_S)
        self._guarded.kill()
        self._guarded = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait_for_end(self, timeout_s: float) -> str | None:
        """Why it ended; None if it has not within the time."""
        guarded = self._guarded
        if guarded is None:
            return "it was stopped"
        if not guarded.ended.wait(timeout_s):
            return None
        received = guarded.received()
        return received.name if received else f"exit code {guarded.code}: {self.last_line()}"

    def last_line(self) -> str:
        """The last line that it wrote."""
        return self._lines[-1] if self._lines else "it wrote nothing"
