"""What is measured: closed loops against a server, the SDK's calls, and bare ONNX Runtime as the limit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from bench.peers.environments import PeerError
from bench.peers.wire import HOST

from radserve import AsyncClient, ClientOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.peers.graphs import Graph
    from bench.peers.wire import Wire

PROCESSES = 2


def closed_loop(
    wire: Wire, ports: Sequence[int], request: Path, *, rows: int, in_flight: int, seconds: float
) -> Callable[[], float]:
    """A function that returns how many inputs a second the server answers; clients share its ports out."""
    script = str(Path(__file__).with_name("closed_loop.py"))
    counts = [str(in_flight // PROCESSES), str(seconds)]
    urls = [f"{HOST}:{ports[number % len(ports)]}" for number in range(PROCESSES)]
    commands = [[sys.executable, script, wire.protocol, url, str(request), *counts] for url in urls]

    def run() -> float:
        with ExitStack() as running:
            clients = [
                running.enter_context(
                    subprocess.Popen(  # noqa: S603 - Python itself
                        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                    )
                )
                for command in commands
            ]
            _each_says(clients)  # ready
            for client in clients:
                assert client.stdin is not None
                client.stdin.write("go\n")
                client.stdin.flush()
            said = [line.split() for line in _each_says(clients)]
            return sum(int(calls) / float(taken) for calls, taken in said) * rows

    return run


def _each_says(clients: list[subprocess.Popen[str]]) -> list[str]:
    """One line of each client."""
    said = []
    for client in clients:
        assert client.stdout is not None
        assert client.stderr is not None
        said.append(client.stdout.readline())
        if not said[-1]:
            for other in clients:
                other.terminate()
            msg = f"under load: {(client.stderr.read().strip() or 'a client ended').splitlines()[-1][:200]}"
            raise PeerError(msg)
    return said


def coroutines(graph: Graph, port: int, *, callers: int, coalesce: int, seconds: float) -> Callable[[], float]:
    """A function that returns how many predictions a second so many coroutines of one AsyncClient get."""
    pixels = graph.pixels(1, 0)[0]

    async def run() -> float:
        options = ClientOptions(endpoints=(f"{HOST}:{port}",), coalesce=coalesce)
        async with AsyncClient(options=options) as client:
            model = await client.model(graph.model)
            calls = 0

            async def caller(until: float) -> None:
                nonlocal calls
                while perf_counter() < until:
                    await model.predict(pixels)
                    calls += 1

            await asyncio.gather(*[caller(perf_counter() + 0.2) for _ in range(callers)])
            calls, began = 0, perf_counter()
            await asyncio.gather(*[caller(began + seconds) for _ in range(callers)])
            return calls / (perf_counter() - began)

    return lambda: asyncio.run(run())
