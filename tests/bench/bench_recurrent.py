"""What native recurrent operators gain over the loops that tf2onnx writes by itself.

``make bench`` writes the table to tests/bench/results.md. Both graphs run in
turns in the same process, and the fastest run counts: what else the machine does can only add to it.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bench.report import machine, table, write_section
from support.keras_models import keras, layers, vary

from radserve_export.from_keras._tensorflow import tf, tf2onnx
from radserve_export.from_keras.convert import convert
from radserve_export.graphs import OPSET
from radserve_export.graphs.checked import all_nodes, open_session

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray

STEPS, FEATURES, UNITS = 100, 32, 64
BATCHES = (1, 8, 64)
ROUNDS, WARM_UP = 100, 10
MODELS: dict[str, Callable[[], list[Any]]] = {
    "GRU 64": lambda: [layers.GRU(UNITS)],
    "masked LSTM 64": lambda: [layers.Masking(), layers.LSTM(UNITS)],
    "SimpleRNN 64": lambda: [layers.SimpleRNN(UNITS)],
    "SimpleRNN 64, relu": lambda: [layers.SimpleRNN(UNITS, activation="relu")],
    "masked SimpleRNN 64": lambda: [layers.Masking(), layers.SimpleRNN(UNITS)],
}
JUDGED, AT_LEAST = 8, 3


def by_itself(model: keras.Model) -> onnx.ModelProto:
    """What tf2onnx makes of a model without any help."""
    signature = [tf.TensorSpec((None, STEPS, FEATURES), tf.float32, name="sequence")]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature)
    made: onnx.ModelProto = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)[0]
    return made


def feed(batch: int) -> NDArray[np.float32]:
    """Right-padded sequences of all lengths up to the whole."""
    rng = np.random.default_rng(batch)
    values = rng.normal(size=(batch, STEPS, FEATURES)).astype(np.float32)
    lengths = np.linspace(STEPS, STEPS / 4, batch).astype(int)
    values[np.arange(STEPS)[None] >= lengths[:, None]] = 0
    return values


def ratios_of(name: str) -> dict[int, list[str]]:
    """By batch: its size, both times in ms, and their ratio."""
    model = vary(keras.Sequential([layers.Input((STEPS, FEATURES)), *MODELS[name]()]))
    graphs = [convert(model, source_sha256="0" * 64).graph, by_itself(model)]
    operators = [{node.op_type for node in all_nodes(graph.graph.node)} for graph in graphs]
    assert ["Loop" in found for found in operators] == [False, True], "a loop is what this is compared with"
    sessions = [open_session(graph) for graph in graphs]
    rows: dict[int, list[str]] = {}
    for batch in BATCHES:
        values = feed(batch)
        runs = [(session, {session.get_inputs()[0].name: values}) for session in sessions]
        native, loop = (session.run(None, feeds)[0] for session, feeds in runs)
        np.testing.assert_allclose(native, loop, atol=1e-5, rtol=0)
        times: list[list[float]] = [[], []]
        for index in range(WARM_UP + ROUNDS):
            for taken, (session, feeds) in zip(times, runs, strict=True):
                began = perf_counter()
                session.run(None, feeds)
                if index >= WARM_UP:
                    taken.append((perf_counter() - began) * 1e3)
        fastest = [min(taken) for taken in times]
        rows[batch] = [str(batch), *(f"{ms:.2f}" for ms in fastest), f"{fastest[1] / fastest[0]:.1f}"]
    return rows


@pytest.mark.timeout(600)
def test_native_operators_against_loops() -> None:
    measured = {name: ratios_of(name) for name in MODELS}
    rows = [[name, *cells] for name, of_batch in measured.items() for cells in of_batch.values()]
    lines = [
        f"{machine()} The fastest of {ROUNDS} runs, taken in turns, of {STEPS} steps of {FEATURES}",
        "values in ONNX Runtime with one thread, in ms. tf2onnx without the exporter's help writes a Loop.",
        "A SimpleRNN over so few steps is exported as a node for each step.",
        "",
        *table(("layer", "batch", "exported", "tf2onnx alone", "ratio"), rows),
    ]
    write_section("Recurrent layers", lines)
    for name, of_batch in measured.items():
        assert float(of_batch[JUDGED][-1]) >= AT_LEAST, f"{name} is not {AT_LEAST} times as fast as a loop"
