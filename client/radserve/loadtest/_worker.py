"""What runs in a worker process: send requests as a plan says, count what comes of them, tell it window by window."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import pickle
import selectors
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import IO

    from radserve.loadtest._messages import Job

_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_TIMER_SLACK = 29  # PR_SET_TIMERSLACK


class IdleSelector(selectors.SelectSelector):
    """Waits to the microsecond, not to the millisecond as epoll, and counts how long.

    Attributes:
        idle_s: Time that it waited.
    """

    idle_s = 0.0

    def select(self, timeout: float | None = None) -> Any:  # noqa: ANN401 - as the base class
        """As the base class."""
        begin = time.monotonic()
        ready = super().select(timeout)
        self.idle_s += time.monotonic() - begin
        return ready


def main() -> None:
    """Work for the process that started this one until it ends, or closes the pipe.

    Argument of the command line: the parent's process id.
    """
    parent = int(sys.argv[1])
    libc = ctypes.CDLL(None)
    libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    libc.prctl(_TIMER_SLACK, 1)
    if os.getppid() != parent:
        return
    commands, told = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # what a library prints must not get between the messages
        os.dup2(nothing, stream)

    from radserve.errors import RadserveError  # noqa: PLC0415 - after the parent's death was settled
    from radserve.loadtest._messages import Crashed, encode  # noqa: PLC0415 - as above

    try:
        _work(commands, told)
    except BrokenPipeError:
        return
    except Exception as error:  # noqa: BLE001 - told by whoever started this process
        name = "" if isinstance(error, RadserveError) else f"{type(error).__name__}: "
        told.write(encode(Crashed(f"{name}{error}")))
        told.flush()


def _work(commands: IO[bytes], told: IO[bytes]) -> None:
    from radserve.loadtest._messages import LENGTH  # noqa: PLC0415 - see main
    from radserve.loadtest._sending import work  # noqa: PLC0415 - see main

    job: Job = pickle.loads(_exactly(commands, *LENGTH.unpack(_exactly(commands, LENGTH.size))))  # noqa: S301 - the parent's
    selector = IdleSelector()
    loop = asyncio.SelectorEventLoop(selector)
    asyncio.set_event_loop(loop)
    gc.collect()
    gc.freeze()  # else each full collection goes through all that was imported, and stops the clock's work for it
    try:
        loop.run_until_complete(work(job, commands, told, lambda: selector.idle_s))
    finally:
        loop.close()


def _exactly(stream: IO[bytes], size: int) -> bytes:
    parts, left = [], size
    while left:
        part = stream.read(min(left, 2**20))
        if not part:
            raise BrokenPipeError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
