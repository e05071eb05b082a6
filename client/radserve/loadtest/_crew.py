"""The worker processes of a run, from their start to their end."""

from __future__ import annotations

import asyncio
import multiprocessing.spawn
import os
import pickle
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from radserve.errors import RadserveError
from radserve.loadtest._messages import LENGTH, Crashed, Job, Ready, Start, decode_told, encode, frame
from radserve.options import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any

    from numpy.typing import NDArray
    from typing_extensions import Self

    from radserve.contracts import Contract
    from radserve.loadtest._messages import Told
    from radserve.loadtest._plan import Plan
    from radserve.options import ClientOptions

_START_LIMIT_S = 60.0
_END_LIMIT_S = 10.0
# Not -m: a mere namesake numpy.py in the current folder would come first. The path is the caller's.
_BOOT = "import sys; sys.path[:] = sys.argv[2:]; from radserve.loadtest._worker import main; main()"


class Crew:
    """Starts workers and hears what they tell; ends them when the context is left.

    They are new Python processes, and end with this one, however it ends.

    Args:
        plan: The load.
        contract: Of the model.
        options: How to reach its servers.
        payloads: Arrays of each request.
    """

    def __init__(
        self,
        plan: Plan,
        contract: Contract,
        options: ClientOptions,
        payloads: Sequence[dict[str, NDArray[Any]]],
    ) -> None:
        once = RetryPolicy(attempts=1)  # what fails is counted, not hidden
        sent = replace(options, retry=once, audit=None)
        self._jobs = [
            Job(plan=plan, worker=number, contract=contract, options=sent, payloads=payloads)
            for number in range(plan.workers)
        ]
        self._told: asyncio.Queue[tuple[int, Told | None]] = asyncio.Queue()
        self._processes: list[asyncio.subprocess.Process] = []
        self._hearing: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        try:
            for job in self._jobs:
                await self._start(job)
            await asyncio.wait_for(self._all_ready(), _START_LIMIT_S)
        except BaseException as error:
            await self._end(now=True)
            if isinstance(error, asyncio.TimeoutError):
                msg = f"the worker processes were not ready within {_START_LIMIT_S:g} s: use fewer --workers"
                raise RadserveError(msg) from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end(now=kind is not None)

    def begin(self, start: Start) -> None:
        """Let all of them begin at the same time."""
        for process in self._processes:
            _stdin(process).write(encode(start))

    def stop(self) -> None:
        """Let them send no more; they tell what is under way, then end."""
        for process in self._processes:
            _stdin(process).close()

    async def hear(self) -> tuple[int, Told | None]:
        """The next message, and the number of the worker that told it; None when it has ended."""
        return await self._told.get()

    async def _start(self, job: Job) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RADSERVE_")}
        try:
            process = await asyncio.create_subprocess_exec(
                multiprocessing.spawn.get_executable(),
                *("-I", "-c", _BOOT, str(os.getpid()), *sys.path),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for the caller, who ends it
            )
        except OSError as error:
            msg = f"no worker process can be started: {error.strerror}"
            raise RadserveError(msg) from None
        self._processes.append(process)
        self._hearing.append(asyncio.create_task(self._hear(job.worker, process)))
        _stdin(process).write(frame(pickle.dumps(job)))
        with suppress(OSError):  # it has died: its end is told
            await _stdin(process).drain()

    async def _hear(self, worker: int, process: asyncio.subprocess.Process) -> None:
        stream = process.stdout
        try:
            while stream is not None:
                (size,) = LENGTH.unpack(await stream.readexactly(LENGTH.size))
                self._told.put_nowait((worker, decode_told(await stream.readexactly(size))))
        except (asyncio.IncompleteReadError, OSError):
            pass
        self._told.put_nowait((worker, None))

    async def _all_ready(self) -> None:
        for _ in self._jobs:
            _, message = await self._told.get()
            if not isinstance(message, Ready):
                why = message.message if isinstance(message, Crashed) else "it ended before the first request"
                msg = f"a worker process cannot begin: {why}"
                raise RadserveError(msg)

    async def _end(self, *, now: bool = False) -> None:
        for process in self._processes:
            _stdin(process).close()
        ends = asyncio.gather(*(process.wait() for process in self._processes))
        try:
            await asyncio.wait_for(asyncio.shield(ends), 0 if now else _END_LIMIT_S)
        except asyncio.TimeoutError:
            pass
        finally:
            for process in self._processes:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()
            await ends
            for task in self._hearing:
                task.cancel()
            await asyncio.gather(*self._hearing, return_exceptions=True)


def _stdin(process: asyncio.subprocess.Process) -> asyncio.StreamWriter:
    if process.stdin is None:
        raise AssertionError  # it was started with a pipe
    return process.stdin
