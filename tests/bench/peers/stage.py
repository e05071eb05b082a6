"""One stage: some servers at the same time, each measured in turns with bare ONNX Runtime on both sides."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from bench.limit import bare
from bench.peers import catalogue, load
from bench.peers.environments import PeerError
from bench.peers.running import Running, free_ports
from bench.peers.wire import KServeGrpc, KServeHttp, SharedMemory

if TYPE_CHECKING:
    from pathlib import Path

    from bench.peers.graphs import Graph
    from bench.peers.wire import Wire

GRPC, HTTP, SHARED = "radserve, gRPC", "radserve, HTTP", "radserve, shared memory"
WITHOUT_QUEUE = "radserve, gRPC, `queue: null`"
COALESCE = {"AsyncClient, each alone": 0, "AsyncClient, default cap (8)": 8, "AsyncClient, cap of 32": 32}
CALLERS = 32
LIMIT_ROWS = {"chest_xray": 16, "densenet": 1}
_START_S = 180.0
_DISTINCT = 16
_TOLERANCE = 1e-5  # of a probability: in a batch sums are added in another order

Cell = tuple[str, int, int]
"""Model, inputs a request, requests in flight."""
Ways = dict[tuple[str, Cell], Callable[[], float]]
"""What measures a row's cell."""


@dataclass
class Findings:
    """What was found, by the row's title."""

    rates: dict[tuple[str, Cell], list[tuple[float, float]]] = field(default_factory=dict)
    """Inputs a second of each turn, and the mean of the limit's turns right before and after."""
    memory_mib: dict[tuple[str, str], float] = field(default_factory=dict)
    """Of each server and model."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a cell is empty."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is served, and asked for, while the same servers run.

    Attributes:
        graph: What they serve.
        rows: Inputs of each request.
        in_flight: Requests in flight, a cell for each.
        rounds: Turns of each way.
        seconds: Length of a turn; the limit's are half as long.
        folder: For logs and requests.
    """

    graph: Graph
    rows: int
    in_flight: tuple[int, ...]
    rounds: int
    seconds: float
    folder: Path

    def measure(self, names: list[str], found: Findings) -> None:
        """Start these servers, check their answers, and measure them in turns."""
        with ExitStack() as running:
            servers: dict[str, Running] = {}
            ways: Ways = {}
            for name in names:
                if started := self._tried(name, running, found):
                    servers[name], more = started
                    ways |= more
            self._take_turns(ways, found)
            for name, server in servers.items():
                found.memory_mib[title(name), self.graph.model] = server.resident_mib()

    def _tried(self, name: str, running: ExitStack, found: Findings) -> tuple[Running, Ways] | None:
        try:
            with ExitStack() as own:
                started = self._started(name, own)
                running.push(own.pop_all())
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one, it is its row; the others go on
            self._failed(found, title(name), error)
            return None
        return started

    def _started(self, name: str, own: ExitStack) -> tuple[Running, Ways]:
        port, *others, grpc_port = free_ports(3)
        peer = catalogue.PEERS.get(name)
        command = catalogue.command(name, port)
        variables = catalogue.environment(name, self.graph, self.rows, port, grpc_port)
        server = own.enter_context(Running(command, variables, self.folder / f"{name}.log"))
        if peer:
            ports = [grpc_port] if peer.wire.protocol == "grpc" else [port, *others][: peer.replicas]
            wires: dict[str, tuple[Wire, list[int]]] = {peer.title: (peer.wire, ports)}
        else:
            self._check(KServeGrpc(), [grpc_port], server)
            wires = {title(name): (KServeGrpc(), [grpc_port])}
            if name == catalogue.OURS:
                region = own.enter_context(SharedMemory.opened(self.graph, grpc_port, self.rows))
                wires |= {HTTP: (KServeHttp(), [port]), SHARED: (region, [grpc_port])}
        for wire, ports in wires.values():
            self._check(wire, ports, server)
        ways = {}
        for row, (wire, ports) in wires.items():
            request = self.folder / f"{ports[0]}_{type(wire).__name__}.request"
            request.write_bytes(wire.request(self.graph, self.graph.pixels(self.rows, 0)))
            for calls in self.in_flight:
                ways[row, (self.graph.model, self.rows, calls)] = load.closed_loop(
                    wire, ports, request, rows=self.rows, in_flight=calls, seconds=self.seconds
                )
        cell = (self.graph.model, 1, CALLERS)
        if name == catalogue.OURS and self.rows == 1 and CALLERS in self.in_flight:
            for row, cap in COALESCE.items():
                ways[row, cell] = load.coroutines(
                    self.graph, grpc_port, callers=CALLERS, coalesce=cap, seconds=self.seconds
                )
        return server, ways

    def _check(self, wire: Wire, ports: list[int], server: Running) -> None:
        """Wait until it answers, then compare answers to different requests, some of them at the same time."""
        until = time.monotonic() + _START_S
        while True:
            server.check()
            try:
                for port in ports:
                    wire.outputs(self.graph, port, self.graph.pixels(self.rows, 0))
                break
            except (OSError, PeerError) as error:
                if time.monotonic() > until:
                    msg = f"does not answer within {_START_S:.0f} s: {error}"
                    raise PeerError(msg) from error
                time.sleep(0.2)
        several = 1 if isinstance(wire, SharedMemory) else _DISTINCT  # all use the one region
        with ThreadPoolExecutor(several) as pool:
            for wrong in pool.map(lambda seed: self._wrong(wire, ports[seed % len(ports)], seed), range(_DISTINCT)):
                if wrong:
                    raise PeerError(wrong)

    def _wrong(self, wire: Wire, port: int, seed: int) -> str | None:
        pixels = self.graph.pixels(self.rows, seed)
        answers = wire.outputs(self.graph, port, pixels)
        for name, expected in self.graph.expected(pixels).items():
            if not np.allclose(answers[name], expected, rtol=0, atol=_TOLERANCE):
                return f"wrong {name}: {answers[name].ravel()[:3]} instead of {expected.ravel()[:3]}"
        return None

    def _take_turns(self, ways: Ways, found: Findings) -> None:
        limit = bare(self.graph.path, LIMIT_ROWS[self.graph.model], self.seconds / 2)
        for turn in range(self.rounds):
            keys = list(ways)
            keys = keys[turn % max(1, len(keys)) :] + keys[: turn % max(1, len(keys))]
            before = limit()
            for key in keys:
                if key not in ways:
                    continue
                try:
                    rate = ways[key]()
                except Exception as error:  # noqa: BLE001 - likewise
                    self._failed(found, key[0], error)
                    del ways[key]
                    continue
                after = limit()
                found.rates.setdefault(key, []).append((rate, (before + after) / 2))
                before = after
        for row, cell in ways:
            rate, ratio = median_of(found.rates[row, cell])
            say(f"{row}: {self.graph.model}, {self.rows} a request, {cell[2]} in flight: {rate:,.0f}/s, {ratio:.2f}")

    def _failed(self, found: Findings, row: str, error: Exception) -> None:
        found.reasons[row] = f"{self.graph.model}, {self.rows} a request: {error or type(error).__name__}"
        say(f"{row}: {found.reasons[row]}")


def title(name: str) -> str:
    """A server's row."""
    own = {catalogue.OURS: GRPC, catalogue.WITHOUT_QUEUE: WITHOUT_QUEUE}
    return own[name] if name in own else catalogue.PEERS[name].title


def median_of(turns: list[tuple[float, float]]) -> tuple[float, float]:
    """Of the rates, and of their ratios to the limit."""
    return median(rate for rate, _ in turns), median(rate / limit for rate, limit in turns)


def say(line: str) -> None:
    """Tell how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)  # noqa: T201 - progress
