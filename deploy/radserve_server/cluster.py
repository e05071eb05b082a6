"""A cluster on one machine: Triton replicas behind the real Envoy, asked by Prometheus if there is one."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radserve.errors import InputError, ServerStartError
from radserve.options import TLS
from radserve_server.certificates import CLIENT, OPERATOR, development_certificates
from radserve_server.embedded import EmbeddedServer
from radserve_server.envoy import Envoy, envoy_program
from radserve_server.gateway import canary_of, local
from radserve_server.neighbour import program
from radserve_server.ports import choose_ports
from radserve_server.prometheus import Prometheus
from radserve_server.runtime import Runtime
from radserve_server.supervise import Event, EventKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from radserve_server.gateway import Canary
    from radserve_server.neighbour import Neighbour

_LOOPBACK = "127.0.0.1"
_ATTEMPTS_AT_FREE_PORTS = 3
_POLL_S = 0.5
_HEALTHY_S = 60.0
_LIVED_S = 60.0
_MAX_PAUSE_S = 30.0

_log = logging.getLogger("radserve.server")


class State(str, Enum):
    """What a replica does."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "not healthy"
    GAVE_UP = "given up"


@dataclass(frozen=True)
class Replica:
    """One replica at one moment.

    Attributes:
        url: ``host:port`` of its gRPC service.
        pid: Process id of its tritonserver; 0 if it does not run.
        state: What it does.
        restarts: How often it was started anew, or one of its models loaded anew.
        requests: How many the gateway has sent it.
    """

    url: str
    pid: int
    state: State
    restarts: int
    requests: int


class Cluster:
    """Embedded Tritons side by side, and a gateway before them, with certificates of their own.

    Use it as a context manager. For development, tests and evaluation: all listen on loopback.

    Args:
        repository: The model repository that all replicas serve.
        replicas: How many.
        port: Of the gateway; 0 takes a free one.
        canary: The public model that tells the gateway whether a replica answers; None takes a text model,
            whose requests never change, else the one with the smallest request.
        prometheus: Whether to run Prometheus, if it is installed.
        on_event: Called with who it is about ("replica 1", "the gateway") and what happened, from other threads.
        gateway: Further fields of ``Gateway``, as a mapping.
        server: Further options of each ``EmbeddedServer``.

    Raises:
        InputError: Fewer than one replica.
        MissingExtraError: Envoy, or what makes certificates, is not installed.
    """

    def __init__(
        self,
        repository: Path,
        *,
        replicas: int = 3,
        port: int = 0,
        canary: str | None = None,
        prometheus: bool = False,
        on_event: Callable[[str, Event], None] | None = None,
        gateway: dict[str, Any] | None = None,
        **server: Any,  # noqa: ANN401 - as EmbeddedServer says
    ) -> None:
        if replicas < 1:
            msg = "a cluster has at least one replica"
            raise InputError(msg)
        self.repository = Path(repository)
        self._port = port
        self._canary = canary
        self._prometheus_is_wanted = prometheus and program("prometheus") is not None
        self._on_event = on_event
        self._settings = dict(gateway or {})
        self.folder = Runtime().folder
        envoy_program()  # to say at once that it is missing
        self._certificates = development_certificates(CLIENT, OPERATOR)
        self._restarts = [0] * replicas
        self._away = [False] * replicas
        self._roll = threading.Lock()
        self._stopping = threading.Event()
        self._keepers: list[threading.Thread] = []
        self._envoy: Envoy | None = None
        self.prometheus: Prometheus | None = None
        """The Prometheus that runs, if one does."""
        options: dict[str, Any] = {"canary_period_s": 2.0, **server}
        self.servers = [
            # The first one's files are everyone's: one look at them is enough.
            EmbeddedServer(self.repository, on_event=partial(self._tell, number), **{**options, **first})
            for number, first in enumerate([{}, *[{"verify": False}] * (replicas - 1)])
        ]
        """The replicas."""

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
    def envoy(self) -> Envoy:
        """The gateway.

        Raises:
            ServerStartError: The cluster does not run.
        """
        if self._envoy is None:
            msg = "the cluster does not run: start it first"
            raise ServerStartError(msg)
        return self._envoy

    @property
    def url(self) -> str:
        """``host:port`` for clients."""
        return self.envoy.url

    @property
    def metrics_url(self) -> str:
        """``host:port`` of the gateway's metrics, at ``/stats/prometheus``."""
        return self.envoy.metrics_url

    @property
    def models(self) -> tuple[str, ...]:
        """The public models."""
        return self.servers[0].models

    @property
    def tls(self) -> TLS:
        """What a client needs."""
        return self._tls(CLIENT)

    @property
    def operator_tls(self) -> TLS:
        """What an operator's client needs, who may read index and statistics."""
        return self._tls(OPERATOR)

    def certificate(self, name: str) -> Path:
        """Where a file of the certificates lies: ``ca.crt``, ``client.crt``, ``client.key`` and the like."""
        return self.folder / "certificates" / name

    def _tls(self, name: str) -> TLS:
        return TLS.from_files(*(self.certificate(file) for file in ("ca.crt", f"{name}.key", f"{name}.crt")))

    def statistic(self, name: str) -> float:
        """One of Envoy's statistics of the replicas, such as ``membership_healthy``; -1 while there is none."""
        return self.envoy.statistic(name)

    def start(self) -> None:
        """Start, and return when the gateway finds every replica healthy.

        Raises:
            ServerStartError: It cannot; nothing is left behind. Or it runs already, and goes on.
        """
        if self._envoy is not None:
            msg = "the cluster was started already: stop it first"
            raise ServerStartError(msg)
        self._stopping.clear()
        try:
            choose_ports(_LOOPBACK, self._port)  # what is wrong is told before anything is started
            canary = canary_of(self.repository, self._canary)
            if not canary.lasts:
                told = "the canary asks %s: after a release that changes its inputs, start the cluster anew"
                _log.warning(told, canary.model)
            self._start_servers()
            self._start_gateway(canary)
            if self._prometheus_is_wanted:
                self._start_prometheus()
        except BaseException:
            self.stop()
            raise

    def _start_servers(self) -> None:
        def start(server: EmbeddedServer) -> None:
            if not self._stopping.is_set():
                server.start()

        with ThreadPoolExecutor(len(self.servers)) as pool:
            started = [pool.submit(start, server) for server in self.servers]
            try:
                for one in as_completed(started):
                    one.result()
            except BaseException:
                self._stopping.set()
                self._stop_servers()  # what starts, then fails at once: leaving the pool waits for it
                raise
        if self._stopping.is_set():
            msg = "the cluster was stopped"
            raise ServerStartError(msg)

    def _start_prometheus(self) -> None:
        (port,) = choose_ports(_LOOPBACK, 0)
        targets = {"radserve-triton": [one.metrics_url for one in self.servers], "radserve-envoy": [self.metrics_url]}
        self.prometheus = Prometheus(Path(f"{self.folder}_prometheus"), port, targets)
        self.prometheus.start()
        self._keep(self.prometheus)
        self.prometheus.wait_until_ready()

    def _start_gateway(self, canary: Canary) -> None:
        replicas = tuple((_LOOPBACK, int(server.grpc_url.rpartition(":")[2])) for server in self.servers)
        plain = local(replicas, canary, self.folder)
        files = {f"certificates/{name}": content for name, content in self._certificates.items()}
        for attempt in range(_ATTEMPTS_AT_FREE_PORTS):
            port, metrics_port, admin_port = choose_ports(_LOOPBACK, self._port, 0, 0)
            ports = {"port": port, "metrics_port": metrics_port, "admin_port": admin_port}
            self._envoy = Envoy(replace(plain, **{**ports, **self._settings}), files=files)
            try:
                self._envoy.start()
                self._envoy.wait_until_healthy(len(self.servers), _HEALTHY_S)
            except ServerStartError:
                # Between choosing a free port and using it, another process may take it.
                if not self._envoy.lost_its_port() or attempt == _ATTEMPTS_AT_FREE_PORTS - 1:
                    raise
                self._envoy.stop()
            else:
                self._keep(self._envoy)
                return

    def stop(self) -> None:
        """Let requests in flight finish, then stop everything; does nothing if it does not run."""
        self._stopping.set()
        try:
            self._stop_servers()
        finally:
            for keeper in self._keepers:
                keeper.join()
            for neighbour in (self._envoy, self.prometheus):
                if neighbour is not None:
                    neighbour.stop()
            self._keepers, self._envoy, self.prometheus = [], None, None

    def _stop_servers(self) -> None:
        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(EmbeddedServer.stop, self.servers))

    def rolling_restart(self) -> None:
        """Start every replica anew, one after the other, each while the gateway sends requests to another.

        Those that get no requests are first. A single replica's callers get no answer until it is back.

        Raises:
            ServerStartError: A replica did not come back, or no other would answer meanwhile; the rest were left alone.
        """
        with self._roll:
            asked = [one.state is State.HEALTHY for one in self.status()]
            for number in sorted(range(len(self.servers)), key=asked.__getitem__):
                server = self.servers[number]
                others = [other for other in self.servers if other is not server]
                if asked[number] and others:
                    self._wait_until_asked(*others)
                if self._stopping.is_set():
                    return
                self._tell(number, Event(EventKind.RESTARTING, None, "is started anew"))
                server.restart()
                self._wait_until_asked(server)
                self._tell(number, Event(EventKind.RESTARTED, None, f"the server was restarted at {server.grpc_url}"))

    def _wait_until_asked(self, *servers: EmbeddedServer) -> None:
        """Wait until the gateway sends requests to one of them, or all is being stopped."""
        urls = [server.grpc_url for server in servers]
        deadline = time.monotonic() + _HEALTHY_S
        while not self._stopping.is_set():
            upstreams = self.envoy.upstreams()
            if any(url in upstreams and upstreams[url].healthy for url in urls):
                return
            if time.monotonic() > deadline:
                msg = f"the gateway does not find {' or '.join(urls)} healthy after {_HEALTHY_S:g} s"
                raise ServerStartError(msg)
            self._stopping.wait(_POLL_S)

    def status(self) -> list[Replica]:
        """What each replica does now."""
        upstreams = self.envoy.upstreams()
        found = []
        for server, restarts, away in zip(self.servers, self._restarts, self._away, strict=True):
            upstream = upstreams.get(server.grpc_url)
            state = State.HEALTHY if upstream is not None and upstream.healthy else State.UNHEALTHY
            if server.gave_up:
                state = State.GAVE_UP
            elif away:
                state = State.STARTING
            requests = upstream.requests if upstream is not None else 0
            found.append(Replica(server.grpc_url, server.pid, state, restarts, requests))
        return found

    def _tell(self, number: int, event: Event) -> None:
        if event.kind in {EventKind.RESTARTED, EventKind.HEALED}:
            self._restarts[number] += 1
        if event.kind in {EventKind.SERVER_DIED, EventKind.RESTARTING, EventKind.RESTARTED}:
            self._away[number] = event.kind is not EventKind.RESTARTED
        self._report(f"replica {number + 1}", event)

    def _report(self, who: str, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(who, event)
        else:
            _log.info("%s: %s", who, event.message)

    def _keep(self, neighbour: Neighbour) -> None:
        """Start it anew whenever it ends."""
        keeper = threading.Thread(target=self._watch, args=(neighbour,), name="radserve-keeper", daemon=True)
        self._keepers.append(keeper)
        keeper.start()

    def _watch(self, neighbour: Neighbour) -> None:
        pause_s, since = 0.0, time.monotonic()
        while not self._stopping.is_set():
            why = neighbour.wait_for_end(_POLL_S)
            if why is None or self._stopping.is_set():
                continue
            self._report(neighbour.name, Event(EventKind.SERVER_DIED, None, f"died ({why})"))
            if time.monotonic() - since > _LIVED_S:
                pause_s = 0.0
            if self._stopping.wait(pause_s):
                return
            pause_s, since = min(2 * pause_s + 1, _MAX_PAUSE_S), time.monotonic()
            try:
                neighbour.start()
            except ServerStartError as error:
                self._report(neighbour.name, Event(EventKind.RESTART_FAILED, None, str(error)))
            else:
                self._report(neighbour.name, Event(EventKind.RESTARTED, None, "was restarted"))
