"""How cost grows with the number of models, of connected clients, and of replicas behind Envoy."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import TYPE_CHECKING

import pytest
from bench.growth_envoy import envoy
from bench.growth_load import cpu_s, interleaved, load, memory_mb, stub_pids, write_request
from bench.growth_models import copies, publish
from bench.growth_pictures import LINEAR, linear
from bench.growth_tables import CPU, HEAD, cpu, figures, latencies, write

from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.growth_load import Point, Turn

SMALL, MEDIUM = "small", "medium"
SIZES = {SMALL: 28, MEDIUM: 224}
MODELS, CLIENTS, REPLICAS = (1, 4, 16, 64), (1, 10, 100, 1000), (1, 2, 3)
ALL, SOME = "all ask at once", "32 in flight"
CLIENT_TURNS, CLIENT_S = 3, 1.5  # a thousand at once wait for half a second each
IDLE_S = 5.0  # a round of the supervisor's canaries


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, and their requests."""
    folder = tmp_path_factory.mktemp("growth")
    publish(folder, SMALL)
    publish(folder, MEDIUM, size=SIZES[MEDIUM], largest=8)
    return folder


def idle_cores(*pids: int) -> float:
    """Cores that these processes and this one, the supervisor's, keep at work while nobody asks."""
    before, began = sum(map(cpu_s, pids)) + process_time(), perf_counter()
    sleep(IDLE_S)
    return (sum(map(cpu_s, pids)) + process_time() - before) / (perf_counter() - began)


def test_with_the_number_of_models(folder: Path) -> None:
    rows, starts, memory = [], [], []
    points: list[Point] = []
    for count in MODELS:
        repository, began = copies(folder, SMALL, count), perf_counter()
        # Copies are not as they were published.
        with EmbeddedServer(repository, verify=False, start_timeout_s=600) as server:
            starts.append(perf_counter() - began)
            pids = stub_pids(server)
            of_server, of_stubs = memory_mb(server.pid), memory_mb(*pids)
            idle, threads = idle_cores(server.pid, *pids), sum(1 for _ in Path(f"/proc/{server.pid}/task").iterdir())
            request = write_request(folder, f"{SMALL}000", SIZES[SMALL])
            with load(server.grpc_url, f"{SMALL}000", request, servers=[server], in_flight=8) as turn:
                points += interleaved({"": turn}).values()
        memory.append(of_server + of_stubs)
        told = [count, f"{starts[-1]:.1f}", len(pids), threads, f"{of_server:,.0f}", f"{of_stubs:,.0f}", f"{idle:.2f}"]
        rows.append([*told, *figures(points[-1]), *cpu(points[-1])])
    write(
        "number of models",
        "Copies of one model, two instances each, started together; then one of them gets 8 requests in flight. Started"
        " once: until all have answered a canary. Memory is the proportional set size before the load; idle, they and"
        f" their supervisor were watched for {IDLE_S:g} s.",
        ("models", "start, s", "stubs", "server's threads", "server, MB", "stubs, MB", "idle, cores", *HEAD, *CPU),
        rows,
        x=("models", MODELS),
        panels={
            "start, s": {"start": starts, LINEAR: linear(MODELS, starts, at=-1)},
            "memory, MB": {"server and stubs": memory, LINEAR: linear(MODELS, memory, at=-1)},
            "latency of one model, ms": {**latencies(points)},
        },
    )


def test_with_the_number_of_clients(folder: Path) -> None:
    request = write_request(folder, f"{SMALL}000", SIZES[SMALL])
    with EmbeddedServer(copies(folder, SMALL, 1), verify=False) as server:
        pid = server.pid
        connect = partial(load, server.grpc_url, f"{SMALL}000", request, servers=[server], seconds=CLIENT_S)
        before = memory_mb(pid)
        with connect(in_flight=CLIENTS[-1], connections=CLIENTS[-1]) as turn:
            connected = memory_mb(pid) - before
            turn()
            asked = memory_mb(pid) - before
        left = memory_mb(pid) - before

        def measured(clients: int, in_flight: int) -> Turn:
            with connect(in_flight=in_flight, connections=clients) as turn:
                return turn()

        ways: dict[str, Callable[[], Turn]] = {}
        for clients in CLIENTS:
            ways[f"{clients} {ALL}"] = partial(measured, clients, clients)
            ways[f"{clients} {SOME}"] = partial(measured, clients, 32)
        found = interleaved(ways, CLIENT_TURNS)
        assert server.pid == pid
    by_load = {how: [found[f"{clients} {how}"] for clients in CLIENTS] for how in (ALL, SOME)}
    each = 1024 / CLIENTS[-1]
    write(
        "connected clients",
        "Every client has its own connection, in two processes. No request failed, and the server is still the same"
        f" process. Its memory for each of {CLIENTS[-1]:,} connections: {connected * each:.0f} kB connected,"
        f" {asked * each:.0f} kB when all have asked at once, {left * each:.0f} kB kept when all have left.",
        ("clients", "load", *HEAD, *CPU),
        [
            [clients, how, *figures(point), *cpu(point)]
            for how, points in by_load.items()
            for clients, point in zip(CLIENTS, points, strict=True)
        ],
        x=("connected clients", CLIENTS),
        panels={
            "inputs a second": {how: [one.rate for one in points] for how, points in by_load.items()},
            "p99, ms": {how: [one.percentile_ms(99) for one in points] for how, points in by_load.items()},
        },
        turns=CLIENT_TURNS,
    )


def test_with_the_number_of_replicas(folder: Path, tmp_path: Path) -> None:
    direct = "no Envoy, 1"
    with ExitStack() as running:
        start = partial(EmbeddedServer, folder / "models", supervise=False)
        servers = [running.enter_context(start()) for _ in REPLICAS]
        ways = {}
        for model, size in SIZES.items():
            request, in_flight = write_request(folder, model, size), 32 if model == SMALL else 8
            connect = partial(load, model=model, request=request, in_flight=in_flight)
            ways[f"{model} {direct}"] = running.enter_context(connect(servers[0].grpc_url, servers=servers[:1]))
            for count in REPLICAS:
                used = servers[:count]
                place = tmp_path / f"{model}{count}"
                place.mkdir()
                url, pid = running.enter_context(envoy([one.grpc_url for one in used], place))
                ways[f"{model} {count}"] = running.enter_context(connect(url, servers=used, others={"envoy": pid}))
        found = interleaved(ways)
    rows = []
    for model, size in SIZES.items():
        limit = found[f"{model} {direct}"]
        for how in (direct, *map(str, REPLICAS)):
            point = found[f"{model} {how}"]
            cells = [f"{size} x {size}", how, *figures(point), point.against(limit)]
            of_envoy = () if how == direct else ("envoy",)
            spent = cpu(point, *of_envoy)
            rows.append([*cells, *(spent if of_envoy else [*spent[:2], "", *spent[2:]])])
    named = {f"{size} x {size}": [found[f"{model} {count}"] for count in REPLICAS] for model, size in SIZES.items()}
    rates = {name: [one.rate for one in points] for name, points in named.items()}
    write(
        "replicas",
        "Envoy with two worker threads, gRPC in and out, least request, and whole servers on the same two cores;"
        " requests of one image, 32 of the small and 8 of the large in flight. The ratio is to the first row.",
        ("input", "replicas", *HEAD, "ratio", *CPU[:2], "Envoy", *CPU[2:]),
        rows,
        x=("replicas behind Envoy", REPLICAS),
        panels={
            "inputs a second": {**rates, LINEAR: linear(REPLICAS, next(iter(rates.values())))},
            "p99, ms": {name: [one.percentile_ms(99) for one in points] for name, points in named.items()},
        },
    )
