"""Server processes that are started, weighed, and stopped with everything they started themselves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers.environments import PeerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

_GRACE_S = 20.0
_MIB = 1024


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that follow one another, on which nobody listens."""
    while True:
        with ExitStack() as stack, suppress(OSError, OverflowError):
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            sockets[0].bind(("127.0.0.1", 0))
            first = int(sockets[0].getsockname()[1])
            for number, one in enumerate(sockets[1:], 1):
                one.bind(("127.0.0.1", first + number))
            return list(range(first, first + count))


class Running:
    """A server and its descendants; a context manager.

    They are known by a variable of their environment, which they inherit: some
    servers' processes leave the process group, and outlive who started them.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._mark = f"PEER_MARK={uuid.uuid4().hex}".encode()
        name, _, value = self._mark.decode().partition("=")
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - ours
                command,
                env={**os.environ, **environment, name: value},
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        # What it started itself tidies up as it ends, too.
        self._wait_for_the_others(0)  # no signal
        self._wait_for_the_others(signal.SIGKILL)
        self._process.wait()

    def _wait_for_the_others(self, number: int) -> None:
        until = time.monotonic() + _GRACE_S
        while (left := self.processes()) and time.monotonic() < until:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.05)

    def check(self) -> None:
        """Raise a PeerError if it ended."""
        if self._process.poll() is not None:
            msg = f"ended with {self._process.returncode}: {self.last_words()}"
            raise PeerError(msg)

    def last_words(self) -> str:
        """The last line of its output."""
        lines = [line.strip() for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines()]
        return next((line[:200] for line in reversed(lines) if line), "nothing was said")

    def processes(self) -> list[int]:
        """All processes that belong to it."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):
                    if self._mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def resident_mib(self) -> float:
        """Resident memory of all processes; what several share counts once (PSS)."""
        total = 0
        for pid in self.processes():
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
                total += sum(int(field.split()[1]) for field in fields if field.startswith("Pss:"))
        return total / _MIB
