"""What the backend leaves out, because it does not pay on a CPU: IO binding, and keeping the optimised graph."""

from __future__ import annotations

from functools import partial
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import onnxruntime as ort
from bench.bench_many import large  # noqa: F401 - a fixture
from bench.bench_serving import against, interleaved
from bench.limit import feeds_of, session_of
from bench.report import machine, table, write_section

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve_server import EmbeddedServer

ROUNDS, SECONDS = 9, 0.5


def _loading(graph: Path, level: ort.GraphOptimizationLevel, kept: Path | None = None) -> float:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    options.log_severity_level = 3  # that a graph of this machine is for this machine
    if kept is not None:
        options.optimized_model_filepath = str(kept)
    began = perf_counter()
    ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return perf_counter() - began


def _each(call: Callable[[], object]) -> Callable[[], float]:
    """A function that measures how long a call takes, in seconds."""

    def measure() -> float:
        began, calls = perf_counter(), 0
        while (taken := perf_counter() - began) < SECONDS:
            call()
            calls += 1
        return taken / calls

    return measure


def _ways(session: ort.InferenceSession, feeds: dict[str, Any]) -> dict[str, Callable[[], object]]:
    names = [one.name for one in session.get_outputs()]
    binding = session.io_binding()

    def bound() -> object:
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for name in names:
            binding.bind_output(name)
        session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    return {"run": lambda: session.run(names, feeds), "IO binding": bound}


def test_what_the_backend_leaves_out(
    reference_server: EmbeddedServer,
    large: EmbeddedServer,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    graphs = {
        name: server.repository / f"{name}_pipeline/1/model.onnx"
        for server, name in (
            (reference_server, "chest_xray"),
            (reference_server, "ct_lesion"),
            (large, "densenet"),
        )
    }
    ways: dict[str, Callable[[], float]]
    everything, nothing = ort.GraphOptimizationLevel.ORT_ENABLE_ALL, ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    rows = []
    for name, graph in graphs.items():
        kept = tmp_path / f"{name}.onnx"
        _loading(graph, everything, kept)
        ways = {"graph": partial(_loading, graph, everything), "kept": partial(_loading, kept, nothing)}
        loads = interleaved(ways, ROUNDS)
        session = session_of(graph)
        for size in (1, 16) if name == "chest_xray" else (1,):
            calls = _ways(session, feeds_of(session, size))
            runs = interleaved({how: _each(call) for how, call in calls.items()}, ROUNDS)
            rows.append(
                [
                    f"`{name}`",
                    size,
                    *[f"{1e3 * median(loads[how]):.1f}" for how in ("graph", "kept")],
                    *[f"{1e6 * median(runs[how]):.0f}" for how in ("run", "IO binding")],
                    against(runs["IO binding"], runs["run"]),
                ]
            )
    head = ("model", "inputs", "load, ms", "load the optimised graph, ms", "run, µs", "IO binding, µs", "ratio")
    lines = [
        f"{machine()} ONNX Runtime with one thread; medians of {ROUNDS} turns, of the ratio also the least and the",
        "greatest. On a CPU IO binding saves no copy: outputs are ONNX Runtime's own memory both ways. What an",
        "instance would save at its start, keeping the optimised graph in the runtime folder costs the first one.",
        "",
        *table(head, rows),
    ]
    write_section("What the backend leaves out", lines)
