"""NVIDIA's perf_analyzer, a load tester of other hands, and models that it and ours can measure alike."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnxruntime as ort
from onnx import helper, numpy_helper
from support.repositories import Tensor, write_config, write_onnx, write_public

if TYPE_CHECKING:
    from collections.abc import Sequence

X: Sequence[Tensor] = (("X", "FP32", (1,)),)
Y: Sequence[Tensor] = (("Y", "FP32", (1,)),)
WINDOWS = 3
_LIMIT_S = 120
_WAITING = """
import itertools
import time

import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, _):
        self.times = itertools.cycle([0.02, 0.02, 0.05])

    def execute(self, requests):
        answers = []
        for request in requests:
            time.sleep(next(self.times))
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", request.inputs()[0].as_numpy())]))
        return answers
"""


class Measured(NamedTuple):
    """What a load tester says of a closed loop.

    Attributes:
        per_s: Inferences per second.
        p50_s: Median latency.
        p90_s: The latency that 90 % did not exceed.
    """

    per_s: float
    p50_s: float
    p90_s: float


def find_perf_analyzer() -> Path | None:
    """The program, beside this Python or on the PATH."""
    beside = Path(sys.executable).with_name("perf_analyzer")
    found = beside if beside.exists() else shutil.which("perf_analyzer")
    return None if found is None else Path(found)


def analyze(program: Path, url: str, model: str, folder: Path, *, concurrency: int, window_s: float) -> Measured:
    """Let perf_analyzer measure three windows of a closed loop, whether or not they agree."""
    row = _analyzed(program, url, model, folder, window_s, "--concurrency-range", f"{concurrency}")
    return Measured(float(row["Inferences/Second"]), *(float(row[f"{name} latency"]) / 1e6 for name in ("p50", "p90")))


def late_ms(program: Path, url: str, model: str, folder: Path, *, rate: float, window_s: float) -> float:
    """The p99 of Poisson arrivals that perf_analyzer, a client of a few µs a request, measures in three windows."""
    load = ("--request-rate-range", f"{rate}", "--request-distribution", "poisson", "--async")
    return float(_analyzed(program, url, model, folder, window_s, *load)["p99 latency"]) / 1e3


def _analyzed(program: Path, url: str, model: str, folder: Path, window_s: float, *load: str) -> dict[str, str]:
    written = folder / "perf_analyzer.csv"
    command = [str(program), "-m", model, "-u", url, "-i", "grpc", "--input-data", "zero", "-f", str(written)]
    command += [*load, "--measurement-interval", f"{1000 * window_s:.0f}"]
    command += ["--max-trials", f"{WINDOWS}", "--stability-percentage", "999"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)  # noqa: S603 - found above
    assert done.returncode == 0, done.stdout + done.stderr
    with written.open(encoding="utf-8") as lines:
        (row,) = csv.DictReader(lines)
    return row


def write_waiting(repository: Path, name: str) -> None:
    """Write a model that waits for 20, 20, 50 ms, and so on: a time that no other program can take from it."""
    step = repository / f"{name}_step"
    write_config(step, X, Y, backend="python", max_batch_size=0)
    (step / "1").mkdir()
    (step / "1" / "model.py").write_text(_WAITING)
    write_public(repository, name, step.name, X, Y, max_batch_size=0)


def write_computing(repository: Path, name: str, seconds: float) -> None:
    """Write an ONNX model that computes for about so long on a core of this machine."""
    step = repository / f"{name}_pipeline"
    graph = step / "1" / "model.onnx"
    write_config(step, X, Y, max_batch_size=0)
    _write_products(graph, 100)
    _write_products(graph, max(100, round(100 * seconds / _time_of(graph))))
    write_public(repository, name, step.name, X, Y, max_batch_size=0)


def _write_products(path: Path, count: int) -> None:
    """Products of a matrix with itself, orthogonal so that no number grows or vanishes."""
    matrix = np.linalg.qr(np.random.default_rng(0).normal(size=(128, 128)))[0].astype(np.float32)
    nodes = [helper.make_node("Mul", ["W", "X"], ["M0"])]
    nodes += [helper.make_node("MatMul", [f"M{place}", "W"], [f"M{place + 1}"]) for place in range(count)]
    nodes += [helper.make_node("ReduceMean", [f"M{count}"], ["MEAN"], keepdims=0)]
    nodes += [helper.make_node("Unsqueeze", ["MEAN", "AXIS"], ["Y"])]
    constants = [numpy_helper.from_array(matrix, "W"), numpy_helper.from_array(np.array([0]), "AXIS")]
    write_onnx(path, nodes, X, Y, constants, batched=False)


def _time_of(graph: Path) -> float:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        session.run(None, {"X": np.zeros(1, np.float32)})
        times.append(time.perf_counter() - begin)
    return min(times)
