"""Where a core's time goes between bare ONNX Runtime and an answer, how late answers are, and what memory it takes."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import pytest
from bench import bench_serving
from bench.bench_many import large  # noqa: F401 - a fixture
from bench.bench_serving import SECONDS, against, client, metadata, rate, request_bytes, shared
from bench.limit import bare, feeds_of, session_of
from bench.queues import repository_of
from bench.report import machine, table, write_section
from support.perf_analyzer import WINDOWS, find_perf_analyzer, late_ms

from radserve.cli import main
from radserve.loadtest import parse_report
from radserve_server import EmbeddedServer
from radserve_server.stubs import stubs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL, ROWS, IN_FLIGHT = "chest_xray", 16, 32
ROUNDS, LATE_S = 7, 20
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def plain(reference_server: EmbeddedServer, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """The same model with ``queue: null``, so that Triton may prepare batches ahead."""
    repository = repository_of(reference_server.repository, MODEL, tmp_path / "models", has_queue=False)
    with EmbeddedServer(repository, verify=False) as server:
        yield server


def spent_s(pid: int) -> float:
    """Seconds of a core that a process has used, also where it just ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def measured(server: EmbeddedServer, request: Path) -> tuple[float, float, float, float]:
    """Inputs a second, and µs of a core for each: of the stubs, of tritonserver, of the client."""
    stubs = [stub.pid for stub in stubs_of(server.pid, server.repository)]
    with client(server.grpc_url, request, IN_FLIGHT) as started:
        groups = (stubs, [server.pid], [started.pid])
        before = [sum(map(spent_s, group)) for group in groups]
        inputs_per_s = rate(started) * ROWS
        used = [sum(map(spent_s, group)) - earlier for group, earlier in zip(groups, before, strict=True)]
    stub, triton, own = (one / (inputs_per_s * bench_serving.SECONDS) * 1e6 for one in used)
    return inputs_per_s, stub, triton, own


def test_where_the_time_goes(reference_server: EmbeddedServer, plain: EmbeddedServer, tmp_path: Path) -> None:
    described = metadata(reference_server.grpc_url, MODEL)
    limit = bare(reference_server.repository / f"{MODEL}_pipeline" / "1" / "model.onnx", ROWS, SECONDS)
    limits: list[float] = []
    with (
        shared(reference_server.grpc_url, described, ROWS) as region,
        shared(plain.grpc_url, described, ROWS) as plain_region,
    ):
        ways = {
            "gRPC": (reference_server, request_bytes(described, ROWS)),
            "shared memory": (reference_server, request_bytes(described, ROWS, region)),
            "gRPC, `queue: null`": (plain, request_bytes(described, ROWS)),
            "shared memory, `queue: null`": (plain, request_bytes(described, ROWS, plain_region)),
        }
        found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in ways}
        for turn in range(ROUNDS):
            limits.append(limit())
            names = list(ways)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                server, content = ways[name]
                request = tmp_path / "request.bin"
                request.write_bytes(content)
                found[name].append(measured(server, request))
    rows = [["bare ONNX Runtime", f"{median(limits):,.0f}", "1", f"{2e6 / median(limits):.1f}", "", "", "2.00"]]
    for name, turns in found.items():
        per_s, *used = (list(column) for column in zip(*turns, strict=True))
        busy = median(sum(one[1:]) * one[0] / 1e6 for one in turns)
        each = [f"{median(column):.1f}" for column in used]
        rows.append([name, f"{median(per_s):,.0f}", against(per_s, limits), *each, f"{busy:.2f}"])
    head = ("how", "inputs a second", "ratio to bare", "ONNX Runtime and stubs", "tritonserver", "client", "cores busy")
    lines = [
        f"{machine()} `{MODEL}`, {ROWS} inputs a request, {IN_FLIGHT} in flight, in µs of a core for each input;",
        f"medians of {ROUNDS} turns of {bench_serving.SECONDS:g} s; of the ratio also the least and the greatest.",
        "With priorities or a queue policy Triton prepares no batch ahead: an instance that has answered is idle until",
        "further requests arrive, and then is told by way of two threads. Stubs that keep to a core each were tried:",
        "of 1 and 16 inputs a request, 8 and 32 in flight, gRPC and shared memory, they got 1.01 to 1.05 times what",
        "others do (0.4 to 4.2 in single turns, n = 9); two models' first instances would share a core for that.",
        "",
        *table(head, rows),
    ]
    write_section("Where the time goes", lines)


class Load(NamedTuple):
    """What a load test found: answers a second, the p99 of latency and of how late requests left."""

    per_s: float
    p99_ms: float
    late_ms: float
    is_valid: bool


def loadtest(url: str, model: str, folder: Path, *load: str) -> Load:
    """One run; of an invalid one, the median p99 of its windows."""
    written = folder / "load.json"
    length = ["--warm-up", "1", "--window", f"{LATE_S / 5}", "--duration", f"{LATE_S}"]
    with pytest.raises(SystemExit):
        main(["loadtest", model, "--url", url, *load, *length, "--json", str(written)])
    run = parse_report(written.read_bytes()).runs[0]
    windows = run.windows
    per_s = sum(one.inferences for one in windows) / sum(one.seconds for one in windows)
    if run.figures is None:
        p99_s = median(one.p99_s or math.inf for one in windows)
    else:
        (p99_s,) = (one.latency_s.value for one in run.figures.percentiles if one.percent == 99)
    late_s = median(one.lag_s or 0 for one in windows)
    return Load(per_s, p99_s * 1e3, late_s * 1e3, not run.invalid)


def alone_ms(graph: Path) -> float:
    """The median time of bare ONNX Runtime for one input, one thread."""
    session = session_of(graph)
    feeds, times = feeds_of(session, 1), []
    for _ in range(100):
        began = perf_counter()
        session.run(None, feeds)
        times.append(perf_counter() - began)
    return median(times) * 1e3


def test_how_late_answers_are_below_what_the_server_can(
    reference_server: EmbeddedServer,
    plain: EmbeddedServer,
    large: EmbeddedServer,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    analyzer = find_perf_analyzer()
    if analyzer is None:
        pytest.skip("perf_analyzer is missing: deploy/requirements/perf_analyzer .venv-dev")
    rows = []
    for server, model, queue, in_flight in (
        (reference_server, MODEL, "default", "16"),
        (plain, MODEL, "`queue: null`", "16"),
        (large, "densenet", "default", "4"),
    ):
        url, graph = server.grpc_url, server.repository / f"{model}_pipeline" / "1" / "model.onnx"
        most = loadtest(url, model, tmp_path, "--scenario", "closed-loop", "--concurrency", in_flight).per_s
        bare_ms = alone_ms(graph)
        # So few requests as a small share of a large model's are no p99.
        for share in (0.1, 0.25, 0.5) if model == MODEL else (0.5,):
            found = loadtest(url, model, tmp_path, "--scenario", "server", "--rate", f"{most * share:.1f}")
            cheap_ms = late_ms(analyzer, url, model, tmp_path, rate=most * share, window_s=LATE_S / WINDOWS)
            numbers = (most * share, found.per_s, bare_ms, 5 * bare_ms + 2, cheap_ms, found.p99_ms, found.late_ms)
            cells = [f"{number:,.2f}" for number in numbers]
            rows.append([f"`{model}`", queue, f"{share:.0%}", *cells, "yes" if found.is_valid else "no"])
    head = (
        "model",
        "queue",
        "load",
        "offered, a second",
        "answered",
        "bare, ms",
        "5 x bare + 2 ms",
        "p99, ms: perf_analyzer",
        "loadtest",
        "late, ms",
        "valid",
    )
    lines = [
        f"{machine()} `radserve loadtest`, one input a request: Poisson arrivals at a share of what a closed loop",
        f"gets, for {LATE_S} s. Latency counts from when a request was due; of a run that is not valid, the median p99",
        "of its windows. Late is the p99 of how late requests left: load generator and server want the same cores.",
        "NVIDIA's perf_analyzer, of the same arrivals, counts from when a request left, and takes a few µs for it.",
        "",
        *table(head, rows),
    ]
    write_section("Latency under part of the load", lines)


def resident(pid: int) -> tuple[float, float]:
    """MiB of a process: all that is resident, and its share of it (PSS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    whole, share = (int(re.findall(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[0]) / 1024 for name in ("Rss", "Pss"))
    return whole, share


def test_what_memory_the_server_takes(
    reference_server: EmbeddedServer,
    large: EmbeddedServer,  # noqa: F811 - the fixture
) -> None:
    rows = []
    for server in (reference_server, large):
        stubs = sorted(stubs_of(server.pid, server.repository), key=lambda stub: stub.model)
        of_stubs = [resident(stub.pid) for stub in stubs]
        whole, share = resident(server.pid)
        rows.append(
            [
                f"{len(server.models)} models" if len(server.models) > 1 else f"`{server.models[0]}`",
                f"{whole:.0f} ({share:.0f})",
                len(stubs),
                f"{median(one for one, _ in of_stubs):.0f} ({median(part for _, part in of_stubs):.0f})",
                f"{max(one for one, _ in of_stubs):.0f}",
                f"{share + sum(part for _, part in of_stubs):.0f}",
            ]
        )
    head = ("served", "tritonserver", "stubs", "a stub, median", "a stub, most", "all together")
    lines = [
        f"{machine()} Resident MiB, in brackets with shared pages divided among those that share them; all together is",
        "the sum of those.",
        "",
        *table(head, rows),
    ]
    write_section("Memory", lines)
