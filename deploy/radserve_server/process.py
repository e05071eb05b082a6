"""A server process with its guard: start, read its log, stop, leave nothing."""

from __future__ import annotations

import re
import shutil
import signal
import threading
from collections import deque
from typing import TYPE_CHECKING

from radserve.errors import ServerStartError
from radserve_server.guarded import Guarded
from radserve_server.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from radserve_server.discover import TritonInstallation

_KEPT_LINES = 500
# Threads that the python backend keeps for each instance's questions to the server, few and short here. The default
# is 32: 64 models of two instances then have 4,600, and the server spends a third of its time in the kernel's futexes.
_POOL = 2
# After this line no request is in flight; the rest of Triton's exit only waits for its stubs.
_DRAINED = "All models are stopped, unloading models"
# The log says so reliably; trying to connect to a free port can end in a connection to oneself.
_SERVICE_STARTED = re.compile(r'"Started (?:GRPCInferenceService|HTTPService|Metrics Service) at ')
_ANSWERS_LEAVE_S = 0.3
_FAILED_MODEL = re.compile(r"failed to load '([^']+)' version (\d+): (.*)")
# Triton names the cause first and its consequences after it; what the command line's parser
# has to say comes before its long help.
_TELLING = (
    re.compile(r'^E\d{4} [\d:.]+ \d+ \S+\] (?!"?CudaDriverHelper|"?unable to create stream)"?(.*?)"?$'),
    re.compile(r"^(.*(?:unrecognized|invalid|ambiguous) option.*)$"),
    re.compile(r"^error: (.*)$"),
)
# No line of the log says who sent these.
_FROM_OUTSIDE = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM})
_PORT_LOST = re.compile(r"already in use|failed to (?:bind|start (?:grpc|http|metrics))|unable to bind", re.IGNORECASE)


class ServerProcess:
    """One run of ``tritonserver``, from nothing to nothing.

    Args:
        triton: The server to run.
        arguments: Its command line without the program and the backend directory.
        drain_s: How long requests in flight may take when it is stopped.
        environment: Further variables for it and its backends.
        log: Called with each line of the server's log, from another thread.
    """

    def __init__(
        self,
        triton: TritonInstallation,
        arguments: Sequence[str],
        *,
        drain_s: float,
        environment: Mapping[str, str] | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self._triton = triton
        self._arguments = arguments
        self._drain_s = drain_s
        self._environment = environment or {}
        self._log = log
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._drained = threading.Event()
        self._services = 3 - sum(switch in arguments for switch in ("--allow-http=false", "--allow-metrics=false"))
        self.runtime = Runtime()
        self._guarded = Guarded(
            self.runtime.folder,
            self.runtime.shared_memory_prefix,
            drain_s=drain_s,
            on_line=self._read,
            on_end=self._drained.set,
        )
        self.listening = threading.Event()
        """Set when all its services are up."""
        self.ended = self._guarded.ended
        """Set when the process has ended, by itself or not."""

    @property
    def pid(self) -> int:
        """Process id of tritonserver itself."""
        return self._guarded.pid

    def start(self) -> None:
        """Start it; return as soon as the process exists.

        Raises:
            ServerStartError: The runtime folder cannot be written.
        """
        try:
            self._spawn(self.runtime.prepare(self._triton))
        except OSError as error:
            self.kill()
            reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror or error
            folder = self.runtime.folder
            msg = (
                f"the runtime folder {folder} cannot be prepared: {reason}: make room, or set TMPDIR to another folder"
            )
            raise ServerStartError(msg) from error
        except BaseException:
            self.kill()
            raise

    def _spawn(self, backends: Path) -> None:
        prefix = self.runtime.shared_memory_prefix
        command = [str(self._triton.binary), *self._arguments, f"--backend-directory={backends}"]
        command.append(f"--backend-config=python,shm-region-prefix-name={prefix}")
        command.append(f"--backend-config=python,thread-pool-size={_POOL}")
        command.append(f"--exit-timeout-secs={max(1, round(self._drain_s))}")
        self._guarded.spawn(command, {**self._triton.environment(), **self._environment})

    def _read(self, line: str) -> None:
        self._lines.append(line)
        if _SERVICE_STARTED.search(line):
            self._services -= 1
            if self._services == 0:
                self._guarded.is_up()
                self.listening.set()
        if _DRAINED in line:
            self._drained.set()
        if self._log is not None:
            self._log(line)

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._guarded.running

    def stop(self) -> None:
        """Let requests in flight finish, then end it and all it started."""
        if self.running:
            self._guarded.terminate()
            if self._drained.wait(self._drain_s):
                self.ended.wait(_ANSWERS_LEAVE_S)
        self.kill()

    def kill(self) -> None:
        """End it and all it started, at once."""
        self._guarded.kill()
        self.runtime.remove()

    def lost_its_port(self) -> bool:
        """Whether it ended because another process had taken its port."""
        return any(_PORT_LOST.search(line) for line in self._lines)

    def why_it_ended(self) -> str:
        """Its exit code and the log's most telling line; the signal alone where somebody else ended it."""
        received = self._guarded.received()
        if received is not None and received in _FROM_OUTSIDE:
            return received.name
        how = received.name if received else f"exit code {self._guarded.code}"
        return f"{how}: {self.telling_line()}"

    def telling_line(self) -> str:
        """The line of the log that best says what is wrong."""
        for line in self._lines:
            if found := _FAILED_MODEL.search(line):
                model, version, reason = found.groups()
                return f"model {model} version {version} cannot be loaded: {reason.rstrip(chr(34))}"
        for pattern in _TELLING:
            for line in self._lines:
                if found := pattern.match(line):
                    return found.group(1)
        return next((line for line in reversed(self._lines) if line.strip()), "it wrote nothing")
