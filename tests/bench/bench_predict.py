"""Where the time of one prediction goes, and what a served model costs over bare ONNX Runtime.

``make bench`` writes the table to tests/bench/results.md. Ratios are against
the baseline of the same run; absolute times are of the machine named there.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
from bench.bench_sdk import watched
from bench.report import machine, table, write_section

from radserve import Client
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from bench.bench_sdk import Stages

    from radserve_server import EmbeddedServer

ROOT = Path(__file__).resolve().parents[2]
ROUNDS, WARM_UP = 300, 30


def median_ms(call: Callable[[], object]) -> float:
    times = []
    for index in range(ROUNDS + WARM_UP):
        began = perf_counter()
        call()
        if index >= WARM_UP:
            times.append((perf_counter() - began) * 1e3)
    return statistics.median(times)


def import_ms() -> float:
    code = "import time; began = time.perf_counter(); from radserve import Client; print(time.perf_counter() - began)"
    runs = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True) for _ in range(5)]  # noqa: S603 - ourselves
    return statistics.median(float(run.stdout) for run in runs) * 1e3


def bare(name: str, client: Client, source: bytes | str) -> float | None:
    """One run of the same graph in this process, without any server."""
    path = ROOT / "model_repository" / f"{name}_pipeline" / "1" / "model.onnx"
    arrays = client.model(name).prepare(source)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    if {entry.name for entry in session.get_inputs()} != set(arrays):
        return None  # a tokenizer stands before this graph
    return median_ms(lambda: session.run(None, arrays))


def row(client: Client, name: str, stages: Stages) -> list[object]:
    source = next(generate(name, 1, seed=5, split=Split.TEST)).source
    model = client.model(name)
    for index in range(ROUNDS + WARM_UP):
        if index == WARM_UP:
            stages.taken.clear()
        model.predict(source)
    of = {work: np.array(seconds) * 1e3 for work, seconds in stages.taken.items()}
    prepared = sum((of[work] for work in ("read", "decode", "preprocess") if work in of), np.zeros(ROUNDS))
    parts = of["predict"], prepared, of["infer"], of["predict"] - prepared - of["infer"]
    total, prepare, served, rest = (float(np.median(part)) for part in parts)
    arrays = model.prepare(source)
    in_a_row, alone = median_ms(lambda: model.infer(arrays)), bare(name, client, source)
    size = sum(array.nbytes for array in arrays.values() if array.dtype != object)
    cells: list[object] = [f"`{name}`", f"{total:.2f}", f"{prepare:.2f}", f"{served:.2f}", f"{rest:.2f}"]
    cells += [f"{in_a_row:.2f}", *([f"{alone:.2f}", f"{in_a_row / alone:.1f}"] if alone else ["not measured"] * 2)]
    return [*cells, size or "text"]


def test_where_the_time_goes(reference_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = watched(monkeypatch)
    with Client(reference_server.grpc_url) as client:
        rows = [row(client, name, stages) for name in ("chest_xray", "ecg_rhythm", "report_triage")]
    head = (
        "model",
        "predict",
        "read and preprocess",
        "wire and server",
        "SDK, the rest",
        "`infer` in a row",
        "bare ONNX Runtime",
    )
    lines = [
        f"{machine()} Medians of {ROUNDS} single predictions, one at a time, in ms; client and server on",
        "the same cores. Stages are timed inside the same calls; a server that is asked without a pause, by `infer`",
        "in a row, answers sooner. The ratio is that of these against bare ONNX Runtime, one thread, in the same run.",
        "",
        *table((*head, "ratio", "bytes sent"), rows),
        "",
        f"`from radserve import Client` in a fresh process: {import_ms():.0f} ms (median of 5).",
    ]
    write_section("One prediction", lines)
