"""The embedded server: one object that is a running Triton."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from radserve.contracts.manifest import verify_repository
from radserve.errors import RadserveError, ServerStartError
from radserve.options._address import is_loopback
from radserve_server import canary, ports
from radserve_server.discover import find_triton, problems
from radserve_server.machine import cores
from radserve_server.process import ServerProcess
from radserve_server.supervise import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from radserve_server.supervise import Event

_ATTEMPTS_AT_FREE_PORTS = 3
_POLL_S = 0.02
_CALL_S = 5.0
_SHOWN_PROBLEMS = 3


class EmbeddedServer:
    """A Triton on this machine, serving one model repository.

    Use it as a context manager. For development, tests and evaluation.

    Args:
        repository: The model repository's folder.
        grpc_port: Port of the gRPC service; 0 takes a free one.
        http_port: Port of the HTTP service; 0 takes a free one.
        metrics_port: Port of the Prometheus metrics; 0 takes a free one.
        host: Address to listen on; only loopback, unless insecure.
        insecure: Allow other addresses: there is neither TLS nor authentication.
        verify: Refuse a repository whose files differ from their manifests.
        supervise: Heal dead or frozen models, restart a dead server.
        tritonserver: The executable; None searches (see ``find_triton``).
        extra_args: Further arguments of tritonserver.
        threads: ONNX Runtime's threads of each instance of each model; None takes what its configuration
            says if that is more than 1, else an equal share of the cores.
        start_timeout_s: How long all models may take to answer.
        drain_s: How long requests in flight may take when the server is stopped.
        canary_period_s: How often the supervisor sends each model a canary.
        canary_timeout_s: How long a canary may take.
        on_log: Called with each line of the server's log, from another thread.
        on_event: Called with what the supervisor saw and did, from another thread.
    """

    def __init__(
        self,
        repository: Path,
        *,
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        host: str = "127.0.0.1",
        insecure: bool = False,
        verify: bool = True,
        supervise: bool = True,
        tritonserver: Path | None = None,
        extra_args: Sequence[str] = (),
        threads: int | None = None,
        start_timeout_s: float = 120.0,
        drain_s: float = 10.0,
        canary_period_s: float = 5.0,
        canary_timeout_s: float = 5.0,
        on_log: Callable[[str], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.repository = Path(repository).absolute()
        self.host = host
        self._insecure = insecure
        self._asked_ports = (grpc_port, http_port, metrics_port)
        self._ports: Sequence[int] = self._asked_ports
        self._verify = verify
        self._supervise = supervise
        self._tritonserver = tritonserver
        self._extra_args = tuple(extra_args)
        self.threads = threads
        self.cores = cores()
        self._start_timeout_s = start_timeout_s
        self._drain_s = drain_s
        self._canary_period_s = canary_period_s
        self._canary_timeout_s = canary_timeout_s
        self._on_log = on_log
        self._on_event = on_event
        self._process: ServerProcess | None = None
        self._supervisor: Supervisor | None = None
        # Guards the process against a stop while the supervisor restarts it.
        self._lock = threading.Lock()
        self._stopped = False
        self._models: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def grpc_url(self) -> str:
        """``host:port`` of the gRPC service."""
        return self._url(0)

    @property
    def http_url(self) -> str:
        """``host:port`` of the HTTP service."""
        return self._url(1)

    @property
    def metrics_url(self) -> str:
        """``host:port`` of the Prometheus metrics."""
        return self._url(2)

    @property
    def pid(self) -> int:
        """Process id of tritonserver; 0 if it does not run."""
        return self._process.pid if self._process is not None and self._process.running else 0

    def start(self) -> None:
        """Start, and return when every public model has answered a canary.

        Raises:
            ServerStartError: It cannot, or does not in time; nothing is left behind.
        """
        self._check_before_start()
        try:
            self._launch_on_free_ports()
            self._begin_to_supervise()
        except BaseException:
            self.stop()
            raise

    def _begin_to_supervise(self) -> None:
        with self._lock:
            if not self._supervise or self._stopped:
                return
            self._supervisor = Supervisor(
                self, period_s=self._canary_period_s, timeout_s=self._canary_timeout_s, report=self._on_event
            )
            self._supervisor.start()

    def restart(self) -> None:
        """Let requests in flight finish, then run it anew on the same ports.

        Raises:
            ServerStartError: It does not become ready; the supervisor tries on.
        """
        supervisor, process = self._supervisor, self._process
        if supervisor is not None:
            supervisor.cancel()
        if process is not None:
            process.stop()
        if supervisor is not None:
            supervisor.join()
        if self._process is not None and self._process is not process:  # the supervisor's, which may have requests
            self._process.stop()
        try:
            self.launch()
        finally:
            self._begin_to_supervise()

    def stop(self) -> None:
        """Let requests in flight finish, then stop; does nothing if it does not run."""
        supervisor = self._supervisor
        if supervisor is not None:
            supervisor.cancel()
        with self._lock:
            self._stopped = True
            supervisor, process = self._supervisor, self._process
        if supervisor is not None:  # a restart may have begun another meanwhile
            supervisor.cancel()
        try:
            if process is not None:
                process.stop()
        finally:
            if process is not None:
                process.kill()
            if supervisor is not None:
                supervisor.join()
            self._process = self._supervisor = None

    @property
    def models(self) -> tuple[str, ...]:
        """The public models that answered at the start."""
        return self._models

    @property
    def gave_up(self) -> bool:
        """Whether the supervisor found that nothing helps."""
        return self._supervisor is not None and self._supervisor.gave_up.is_set()

    def wait_for_end(self, timeout_s: float) -> str | None:
        """Wait for the process to end by itself.

        Args:
            timeout_s: For how long.

        Returns:
            Why it ended; None if it still runs.
        """
        process = self._process
        if process is None:
            return "it was stopped"
        return process.why_it_ended() if process.ended.wait(timeout_s) else None

    def _url(self, index: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self._ports[index]}"

    def _check_before_start(self) -> None:
        if self._process is not None:
            msg = "the server was started already: stop it first"
            raise ServerStartError(msg)
        if not self._insecure and not is_loopback(self.host):
            msg = (
                f"{self.host} is not loopback, and the embedded server is open to all who reach it: use 127.0.0.1,"
                " or allow it with insecure=True (--i-understand-this-is-not-for-production)"
            )
            raise ServerStartError(msg)
        if not self.repository.is_dir():
            msg = f"there is no model repository at {self.repository}: export a model first (radserve export)"
            raise ServerStartError(msg)
        self._stopped = False
        self._triton = find_triton(self._tritonserver)
        if found := problems(self._triton):
            raise ServerStartError("; ".join(str(problem) for problem in found))
        if self._verify and (differences := verify_repository(self.repository, served_only=True)):
            shown = "; ".join(differences[:_SHOWN_PROBLEMS])
            rest = len(differences) - _SHOWN_PROBLEMS
            more = f" and {rest} more" if rest > 0 else ""
            advice = "restore those files, or delete these public models and their steps and export them again"
            msg = f"{self.repository} is not as it was published: {shown}{more}: {advice}"
            raise ServerStartError(msg)

    def _launch_on_free_ports(self) -> None:
        for attempt in range(_ATTEMPTS_AT_FREE_PORTS):
            self._ports = ports.choose_ports(self.host, *self._asked_ports)
            try:
                self.launch()
            except ServerStartError:
                # Between choosing a free port and using it, another process may take it.
                process = self._process
                lost = process is not None and process.lost_its_port()
                if not lost or all(self._asked_ports) or attempt == _ATTEMPTS_AT_FREE_PORTS - 1:
                    raise
            else:
                return

    def launch(self) -> None:
        """Run the server on the ports chosen, in place of the one that ran.

        Raises:
            ServerStartError: It does not become ready.
        """
        process = ServerProcess(
            self._triton,
            self._arguments(),
            drain_s=self._drain_s,
            environment=self._environment(),
            log=self._on_log,
        )
        with self._lock:
            if self._stopped:
                msg = "the server was stopped"
                raise ServerStartError(msg)
            old, self._process = self._process, process
            if old is not None:
                old.kill()
            process.start()
        try:
            self._wait_until_ready(process, time.monotonic() + self._start_timeout_s)
        except BaseException:
            process.kill()
            raise

    def _environment(self) -> dict[str, str]:
        """What the backend must know of this machine; the repository says nothing of it."""
        return {
            "RADSERVE_CORES": str(self.cores),
            "RADSERVE_THREADS": "" if self.threads is None else str(self.threads),
        }

    def _arguments(self) -> list[str]:
        grpc_port, http_port, metrics_port = self._ports
        return [
            f"--model-repository={self.repository}",
            "--model-control-mode=explicit",
            "--load-model=*",
            "--disable-auto-complete-config",
            "--exit-on-error=true",
            "--strict-readiness=true",
            "--allow-sagemaker=false",
            "--allow-vertex-ai=false",
            f"--grpc-address={self.host}",
            f"--grpc-port={grpc_port}",
            f"--http-address={self.host}",
            f"--http-port={http_port}",
            f"--metrics-address={self.host}",
            f"--metrics-port={metrics_port}",
            *self._extra_args,
        ]

    def _wait_until_ready(self, process: ServerProcess, deadline: float) -> None:
        while not process.listening.wait(_POLL_S):
            if process.ended.is_set():
                msg = f"the server died at start ({process.why_it_ended()})"
                raise ServerStartError(msg)
            if time.monotonic() > deadline:
                msg = f"the server was not ready within {self._start_timeout_s:g} s: {process.telling_line()}"
                raise ServerStartError(msg)
        model = None
        try:
            self._models = tuple(canary.public_models(self.grpc_url, timeout_s=_CALL_S))
            for model in self._models:
                canary.check(self.grpc_url, model, timeout_s=max(deadline - time.monotonic(), _CALL_S))
        except RadserveError as error:
            who = f"model {model}" if model else "the server"
            msg = f"{who} does not answer: {error}"
            raise ServerStartError(msg) from error
