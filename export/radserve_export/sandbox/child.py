"""The child as its parent sees it: asked something, answered in time or ended."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import radserve
import radserve_export
from radserve.errors import ConversionError, ExportError, MissingExtraError, SpecError, UntrustedModelError
from radserve_export.sandbox.messages import LENGTH_BYTES, MAX_BYTES, Failed, decode_answer, encode
from radserve_export.sandbox.text import one_line

if TYPE_CHECKING:
    from typing import Self

    from radserve_export.sandbox.limits import Limits
    from radserve_export.sandbox.messages import Answered, Converted, Request

_WORKER = "radserve_export.from_keras.worker"
# All else stays behind: tokens, passwords, proxies. Without a GPU a recurrent layer is traced as it can be converted.
_PASSED = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PYTHONHASHSEED")
_PASSED_PREFIX = "TF_"
_SET = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONSAFEPATH": "1",
}
_ERRORS: dict[str, type[ExportError]] = {
    "SpecError": SpecError,
    "UntrustedModelError": UntrustedModelError,
    "ConversionError": ConversionError,
}
_CHUNK = 1 << 20


class Child:
    """A process that loads one model; as a context it is ended, and waited for, on the way out.

    Args:
        name: The model's file, for messages.
        folder: Private folder: where it may write, and what it takes for its home.
        limits: What it may use.
        trust: Let it work where the system cannot confine it.
        with_current_folder: Let it import modules from where the parent is.
    """

    def __init__(self, name: str, folder: Path, limits: Limits, *, trust: bool, with_current_folder: bool) -> None:
        self._name = name
        self._limits = limits
        self._lock = threading.Lock()
        paths = [path for path in sys.path if path] + ([str(Path.cwd())] if with_current_folder else [])
        home, self._log = folder / "home", folder / "log"
        home.mkdir()
        packages = [str(Path(package.__file__ or "").parent) for package in (radserve, radserve_export)]
        settings = {
            "memory_bytes": int(limits.memory_gib * 2**30),
            "folder": str(folder),
            "readable": [sys.prefix, sys.base_prefix, *paths, *packages, *_library_folders()],
            "parent": os.getpid(),
            "trust": trust,
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this Python, and the text above
                [sys.executable, "-m", _WORKER, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(home, paths),
                cwd=home,
                start_new_session=True,  # Ctrl-C is the parent's business
            )
        os.set_blocking(self._input.fileno(), False)
        os.set_blocking(self._output.fileno(), False)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        return self._process.stdin

    @property
    def _output(self) -> IO[bytes]:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        return self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()
        # Its buffers are empty: all is written past them.
        self._input.close()
        self._output.close()

    def ask(self, request: Request) -> Converted | Answered:
        """Send a request and wait for its answer.

        Raises:
            ExportError: What the child says is wrong with the model, or that it
                took too long, too much, or died.
        """
        with self._lock:
            deadline = time.monotonic() + self._limits.time_s
            content = encode(request)
            self._write(len(content).to_bytes(LENGTH_BYTES, "big") + content, deadline)
            length = int.from_bytes(self._read(LENGTH_BYTES, deadline), "big")
            if length > MAX_BYTES:
                raise self._nonsense()
            try:
                answer = decode_answer(self._read(length, deadline))
            except ValueError as error:
                raise self._nonsense() from error
        if isinstance(answer, Failed):
            raise self._failure(answer)
        return answer

    def _write(self, content: bytes, deadline: float) -> None:
        left = memoryview(content)
        while left:
            self._wait(self._input.fileno(), select.POLLOUT, deadline)
            try:
                left = left[os.write(self._input.fileno(), left[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise self._death() from error

    def _read(self, count: int, deadline: float) -> bytes:
        content = bytearray()
        while len(content) < count:
            self._wait(self._output.fileno(), select.POLLIN, deadline)
            chunk = os.read(self._output.fileno(), min(_CHUNK, count - len(content)))
            if not chunk:
                raise self._death()
            content += chunk
        return bytes(content)

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poller = select.poll()
        poller.register(descriptor, event)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            msg = (
                f"{self._name} took longer than {self._limits.time_s:g} s to be read, converted or run:"
                " raise the limit with --time-limit-s"
            )
            raise ConversionError(msg)

    def _failure(self, answer: Failed) -> Exception:
        if answer.kind == "memory":
            return self._too_much()
        if answer.kind == "unconfined":
            msg = (
                f"{self._name} was not loaded: this system lets no process give up the network (seccomp, user"
                " name spaces): export elsewhere, or say --trust if you made the model yourself"
            )
            return UntrustedModelError(msg)
        if answer.kind == "MissingExtraError":
            return MissingExtraError("export", "reading Keras models")
        return _ERRORS[answer.kind](one_line(answer.message))

    def _too_much(self) -> ConversionError:
        return ConversionError(
            f"{self._name} needs more than {self._limits.memory_gib:g} GiB to be read, converted or run:"
            " raise the limit with --memory-limit-gib"
        )

    def _death(self) -> ConversionError:
        """What to say of a child that closed its end."""
        self._process.kill()
        code = self._process.wait()
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - _CHUNK))
            said = log.read(_CHUNK)
        if b"bad_alloc" in said or b"MemoryError" in said or b"annot allocate memory" in said:
            return self._too_much()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return ConversionError(
            f"the process that reads {self._name} died ({cause}); the file may be damaged, or need more than"
            f" {self._limits.memory_gib:g} GiB (--memory-limit-gib)" + (f": {one_line(last)}" if last else "")
        )

    def _nonsense(self) -> ConversionError:
        return ConversionError(
            f"the process that reads {self._name} gave an answer that is none: do not trust the file"
        )


def _environment(home: Path, paths: list[str]) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIX)}
    folders = {"HOME": str(home), "TMPDIR": str(home), "KERAS_HOME": str(home)}
    return passed | _SET | folders | {"PYTHONPATH": os.pathsep.join(paths)}


def _library_folders() -> list[str]:
    return [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
