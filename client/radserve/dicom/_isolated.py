"""Decode frames in processes of their own, so that no file can kill, stall or swell the caller's.

A decoder process takes one frame at a time, ends by itself when its caller does
or when there is nothing to do, and is used again for the next frame. It is
started anew, not forked: threads and gRPC channels of the caller do not matter.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing.spawn
import os
import signal
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from radserve.dicom._budget import usual_s
from radserve.dicom._codecs import Frame, decode_here
from radserve.dicom._environment import ISOLATED, reader_environment
from radserve.errors import DecodeError, UnsupportedTransferSyntaxError

if TYPE_CHECKING:
    from typing import BinaryIO

    from numpy.typing import NDArray
    from pydicom.uid import UID

    from radserve.dicom._budget import Budget
    from radserve.dicom._codecs import Options

LIMIT_BYTES = 900 * 2**20
LIMIT_WALL_S = 60
IDLE_S = 60
READY = b"radserve"
OUT_OF_MEMORY = 3  # exit status where the request itself does not fit
HEADER = struct.Struct("<QII")  # number of the request, bytes of the JSON text, bytes of the frame
_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from radserve.dicom._decoder_process import main; main()"
DAMAGED = "the pixel data are truncated or damaged: fetch the file again"
_STALLED = "decoding takes longer than frames of their size may: the file is damaged, or made to stall"
_STOPPED = 1
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP)
_TIMED_OUT = (-signal.SIGXCPU, -signal.SIGALRM)


def decode_isolated(data: bytes, syntax: UID, decoder: str, options: Options, budget: Budget) -> Frame:
    """Decode one frame in a process that may die of it; see ``decode_here``.

    Where this process is such a one (``RADSERVE_ISOLATED=1`` in its
    environment), it decodes itself.

    Args:
        data: As for ``decode_here``.
        syntax: Likewise.
        decoder: Likewise.
        options: Likewise.
        budget: Processor time for this frame and those that come with it.

    Raises:
        DecodeError: The decoder refuses the frame, dies of it, or takes more
            than 900 MiB of memory or the processor time that is left.
        UnsupportedTransferSyntaxError: No decoder process can be started.
    """
    if os.environ.get(ISOLATED) == "1":
        return decode_here(data, syntax, decoder, options)
    if budget.left_s <= 0:
        raise DecodeError(_STALLED)
    samples = options["rows"] * options["columns"] * options.get("samples_per_pixel", 1)
    usual = usual_s(len(data), samples)
    request = {"syntax": str(syntax), "decoder": decoder, "options": options, "limit_cpu_s": budget.left_s + usual}
    answer, pixels = _processes.ask(request, data)
    budget.spend(float(answer["taken_cpu_s"]), usual_s=usual)
    stored = pixels.view(answer["dtype"]).reshape(answer["shape"])
    return Frame(
        stored=stored,
        photometric_interpretation=str(answer["photometric_interpretation"]),
        bits_stored=int(answer["bits_stored"]),
    )


class _EndedError(Exception):
    """A decoder process ended before it answered."""


class _Process:
    """One decoder process."""

    def __init__(self) -> None:
        # A folder that holds a hostile numpy.py must not come first in the path: -I, and the caller's own path.
        command = [multiprocessing.spawn.get_executable(), "-I", "-c", _BOOT, *sys.path]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(  # noqa: S603 - Python itself
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=reader_environment(), bufsize=0
        )
        assert self._process.stdin is not None  # noqa: S101 - for mypy: it is a pipe
        assert self._process.stdout is not None  # noqa: S101 - likewise
        self._requests: BinaryIO = self._process.stdin  # type: ignore[assignment]  # unbuffered
        self._answers: BinaryIO = self._process.stdout  # type: ignore[assignment]  # unbuffered
        self._number = 0
        self.started = False

    def ask(self, text: bytes, data: bytes) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """Send one request and wait for its answer; the process itself keeps the time."""
        try:
            if not self.started:
                self.started = bytes(self._receive(len(READY))) == READY
            self._number += 1
            for part in (HEADER.pack(self._number, len(text), len(data)), text, data):
                self._send(part)
            number, text_bytes, data_bytes = HEADER.unpack(self._receive(HEADER.size).data)
            if number != self._number:
                raise _EndedError
            answer = json.loads(bytes(self._receive(text_bytes)))
            return answer, self._receive(data_bytes)
        except (OSError, ValueError) as error:
            raise _EndedError from error

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._requests.write(view) :]

    def _receive(self, size: int) -> NDArray[np.uint8]:
        received = np.empty(size, np.uint8)
        view = received.data
        while view:
            count = self._answers.readinto(view)  # type: ignore[attr-defined]  # of a raw stream
            if not count:
                raise _EndedError
            view = view[count:]
        return received

    @property
    def was_used(self) -> bool:
        """Whether the request just made was not its first."""
        return self._number > 1

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> int:
        """End it, and say how it ended if it did by itself."""
        self.forget()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=0.5)
        self._process.kill()
        self._process.wait()
        return _STOPPED

    def forget(self) -> None:
        """Close this side's pipes: without a caller the process ends."""
        for stream in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                stream.close()

    def disown(self) -> None:
        """In a forked child: the process is the parent's to wait for."""
        self.forget()
        self._process.returncode = 0


class _Processes:
    """The decoder processes of this process: as many as there are threads that decode at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()

    def ask(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """Have one frame decoded by an idle process, or by a new one."""
        text = json.dumps(request).encode()
        while True:
            process = self._take()
            try:
                answer = process.ask(text, data)
            except _EndedError:
                status = self._drop(process)
                if status == 0 and process.was_used:
                    continue  # it was idle for too long and left just now
                raise _failure(status, started=process.started) from None
            except BaseException:
                self._drop(process)  # interrupted: its answer, still to come, must meet no other frame
                raise
            with self._lock:
                self._busy.discard(process)
                self._idle.append(process)
            if "error" in answer[0]:
                raise _refusal(str(answer[0]["error"]))
            return answer

    def _take(self) -> _Process:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_alive():
                    self._busy.add(process)
                    return process
                process.forget()
        try:
            process = _Process()
        except OSError as error:
            msg = f"no process to decode in can be started: {error.strerror}"
            raise UnsupportedTransferSyntaxError(msg, is_final=False) from None
        with self._lock:
            self._busy.add(process)
        return process

    def _drop(self, process: _Process) -> int:
        with self._lock:
            self._busy.discard(process)
        return process.stop()

    def close(self) -> None:
        """Stop those that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.stop()

    def disown(self) -> None:
        """Leave all to the parent: two processes on one pipe would get each other's frames."""
        self._lock = threading.Lock()
        for process in (*self._idle, *self._busy):
            process.disown()
        self._idle, self._busy = [], set()


def _refusal(kind: str) -> Exception:
    """Of a decoder's error, by its name."""
    if kind == "AttributeError":
        return AttributeError()  # an attribute that is not there is told by its own message, see decode_frame
    return _swollen() if kind == "MemoryError" else DecodeError(DAMAGED)


def _swollen() -> DecodeError:
    return DecodeError(
        f"a frame takes more than {LIMIT_BYTES >> 20} MiB of memory to decode, the limit of a decoder process:"
        " it is damaged, or made to swell"
    )


def _failure(status: int, *, started: bool) -> DecodeError | UnsupportedTransferSyntaxError:
    if not started:
        msg = f"no process to decode in can be started: {sys.executable or 'Python'} ended with status {status}"
        return UnsupportedTransferSyntaxError(msg, is_final=False)
    if status in _TIMED_OUT:
        return DecodeError(_STALLED, is_final=status == -signal.SIGXCPU)  # a busy machine, too, takes long by the clock
    if status == OUT_OF_MEMORY:
        return _swollen()
    if status in _FROM_OUTSIDE:
        msg = "the decoder was killed at a frame, as where a machine or container runs out of memory"
        return DecodeError(msg, is_final=False)
    return DecodeError("the decoder crashed on a frame: the file is damaged, fetch it again")


def _disown() -> None:
    _processes.disown()


_processes = _Processes()
atexit.register(_processes.close)
os.register_at_fork(after_in_child=_disown)
