"""Processes that prepare inputs, each looked after by a thread of this one."""

from __future__ import annotations

import math
import multiprocessing.spawn
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING, cast

from radserve._codec import preparing
from radserve._workers._messages import OUT_OF_MEMORY, AnswerError, pack_request, receive_answer, send, too_large
from radserve.errors import DecodeError, InputError, RadserveError

if TYPE_CHECKING:
    from radserve._codec import Prepare, Prepared, Source
    from radserve.dicom import DicomSource

MEMORY_LIMIT_BYTES = 2**31
LIMIT_S = 30.0
_DYING_S = 1.0
_START_LIMIT_S = 60.0
_WATCHED_S = 1.0  # how often, and so how much longer than its limit a worker may take that does not even end itself
# Not -m: a hostile or mere namesake numpy.py in the current folder would come first. The path is the caller's.
_BOOT = "import sys; sys.path[:] = sys.argv[4:]; from radserve._workers._child import main; main()"
_CRASHED = "the process that read the file crashed: the file is damaged, fetch it again"
_KILLED = (
    "the process that read the file was killed, as where a machine or container runs out of memory: allow more, or"
    " fewer workers"
)


class StartError(RadserveError):
    """No worker process can be started here."""


class Workers:
    """Prepares inputs in processes that may crash, stall or swell without harm to this one.

    They are new Python processes, not forks: threads and gRPC channels of this
    one do not matter. They end with it, however it ends. One that dies of an
    input is replaced at the next.

    Args:
        count: How many.
        memory_limit_bytes: Address space of each.
        limit_s: Longest time for one input.
    """

    def __init__(self, count: int, *, memory_limit_bytes: int = MEMORY_LIMIT_BYTES, limit_s: float = LIMIT_S) -> None:
        self._limits = memory_limit_bytes, limit_s
        self._jobs: queue.SimpleQueue[tuple[Prepare, Future[Prepared]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._children: set[_Child] = set()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(count)]
        self._over = threading.Event()
        self._threads.append(threading.Thread(target=self._watch, daemon=True))
        for thread in self._threads:
            thread.start()

    def submit(self, step: Prepare) -> Future[Prepared]:
        """Have a step carried out; its result is that of ``prepare``, or its error.

        A worker that crashes, or takes too long, gives a DecodeError; if none can be started, StartError.
        """
        future: Future[Prepared] = Future()
        self._jobs.put((replace(step, source=_absolute(step.source)), future))
        return future

    def close(self) -> None:
        """End all processes now; what they were at is cancelled."""
        with self._lock:
            self._closed = True
            for child in self._children:
                child.kill()
        self._over.set()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():  # as where it collects the garbage that holds this
                thread.join()

    def _serve(self) -> None:
        # A child ends with the thread that started it (PR_SET_PDEATHSIG), so this one stays with it.
        child: _Child | None = None
        while (job := self._jobs.get()) is not None:
            step, future = job
            if self._closed or not future.set_running_or_notify_cancel():
                future.cancel()
                continue
            try:
                if child is None or not child.is_alive:
                    self._drop(child)
                    child = None  # should none start
                    child = self._start()
                answer = child.ask(step)
            except RadserveError as error:
                answer = error
                self._drop(child)
                child = None
            if isinstance(answer, RadserveError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._drop(child)

    def _watch(self) -> None:
        """End workers that were stopped, and so cannot end themselves at their limit."""
        while not self._over.wait(_WATCHED_S):
            with self._lock:
                for child in self._children:
                    if child.overdue_s > _WATCHED_S:
                        child.kill()

    def _start(self) -> _Child:
        with self._lock:
            if self._closed:
                msg = "closed"
                raise StartError(msg)
            child = _Child(*self._limits)
            self._children.add(child)
        try:
            child.wait_until_ready()
        except StartError:
            self._drop(child)
            raise
        return child

    def _drop(self, child: _Child | None) -> None:
        if child is not None:
            with self._lock:
                self._children.discard(child)
            child.bury()


class _Child:
    """One worker process."""

    def __init__(self, memory_limit_bytes: int, limit_s: float) -> None:
        self._memory_limit_bytes, self._limit_s = memory_limit_bytes, limit_s
        limits = [str(os.getpid()), str(memory_limit_bytes), str(limit_s)]
        command = [multiprocessing.spawn.get_executable(), "-I", "-c", _BOOT, *limits, *sys.path]
        # By now pydicom, half a second, is needed anyway.
        from radserve.dicom._environment import reader_environment  # noqa: PLC0415 - see above

        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(  # noqa: S603 - Python itself
                command,
                stdin=pipe,
                stdout=pipe,
                stderr=subprocess.DEVNULL,
                env=reader_environment(),
                start_new_session=True,  # Ctrl-C is for the caller, who ends it
            )
        except OSError as error:
            msg = f"no worker process can be started: {error.strerror}"
            raise StartError(msg) from None
        self._due = time.monotonic() + _START_LIMIT_S
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def overdue_s(self) -> float:
        """For how long it should have answered."""
        return time.monotonic() - self._due

    def wait_until_ready(self) -> None:
        try:
            receive_answer(self._answers, 0)
        except (OSError, EOFError, AnswerError):
            msg = f"a worker process ended with status {self._process.wait()} before its first input"
            raise StartError(msg) from None
        self._due = math.inf

    def ask(self, step: Prepare) -> Prepared | RadserveError:
        """What the process answers: what was prepared, or what is wrong with the input.

        Raises:
            DecodeError: It died of the input.
        """
        try:
            request = pack_request(step)
        except Exception as error:  # noqa: BLE001 - whatever an object does that is none of the sources known here
            msg = f"the input cannot be handed to a worker process ({type(error).__name__}): give a path or bytes"
            return InputError(msg)
        self._due = time.monotonic() + self._limit_s
        try:
            with preparing(step):
                send(self._requests, request)
                answer = receive_answer(self._answers, self._memory_limit_bytes)
            if answer is not None:
                return answer
        except (OSError, EOFError):
            with suppress(subprocess.TimeoutExpired):  # it may have closed the pipe instead of dying
                raise self._failure(self._process.wait(timeout=_DYING_S)) from None
        except AnswerError:
            pass
        finally:
            self._due = math.inf
        self.kill()
        raise DecodeError(_CRASHED)

    def _failure(self, status: int) -> DecodeError:
        if status == OUT_OF_MEMORY:
            return too_large(self._memory_limit_bytes)
        if status == -signal.SIGALRM or self.overdue_s > 0:
            msg = f"the file takes more than {self._limit_s:g} s to read: it is damaged, or made to stall"
            return DecodeError(msg, is_final=False)
        if status in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP):
            return DecodeError(_KILLED, is_final=False)
        return DecodeError(_CRASHED)

    def kill(self) -> None:
        self._process.kill()

    def bury(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._requests, self._answers):
            with suppress(OSError):  # what could not be written is not needed any more
                stream.close()


def _absolute(source: Source) -> Source:
    """The same for a process whose current folder is another one."""
    if isinstance(source, list | tuple):
        return [cast("DicomSource", _absolute(one)) for one in source]
    if isinstance(source, str | os.PathLike):
        return os.path.abspath(source)  # noqa: PTH100 - a Path would resolve links
    return source
