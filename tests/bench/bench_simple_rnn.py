"""Why a SimpleRNN becomes a node for each step: ways to write one without a loop, side by side.

ONNX Runtime's RNN operator computes tanh (and sigmoid, ELU, softplus) value by
value; its GRU and LSTM, and its Tanh, for many values at once. So other ways are
tried: a GRU whose gates are held open, an LSTM that carries nothing over, a node
for each step. relu in the place of tanh shows what the operator takes for all
but the activation.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from bench.report import machine, table, write_section
from onnx import TensorProto, helper, numpy_helper

from radserve_export.graphs import OPSET
from radserve_export.graphs.checked import open_session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

STEPS, FEATURES, UNITS = 100, 32, 64
BATCHES = (1, 8, 64)
ROUNDS, WARM_UP = 100, 10
# Of a sigmoid: 1 or 0 in float32.
OPEN, SHUT = 100.0, -100.0


def _model(nodes: list[onnx.NodeProto], constants: Mapping[str, object]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [STEPS, None, FEATURES])
    h = helper.make_tensor_value_info("h", TensorProto.FLOAT, None)
    kept = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", [x], [h], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _operator(
    kind: str, kernel: NDArray[Any], recurrent: NDArray[Any], biases: list[float | NDArray[Any]], **attributes: Any
) -> onnx.ModelProto:
    """An operator whose last gate has the weights; the others have nothing but their bias."""
    empty = np.zeros(((len(biases) - 1) * UNITS, 1), np.float32)
    weights = {
        name: np.concatenate([np.broadcast_to(empty, (len(empty), given.shape[1])), given])[None]
        for name, given in (("w", kernel), ("r", recurrent))
    }
    bias = np.concatenate([np.broadcast_to(np.float32(one), UNITS) for one in biases])
    weights["b"] = np.concatenate([bias, np.zeros_like(bias)])[None]
    node = helper.make_node(kind, ["x", "w", "r", "b"], ["", "h"], hidden_size=UNITS, **attributes)
    return _model([node], weights)


def _unrolled(kernel: NDArray[Any], recurrent: NDArray[Any], bias: NDArray[Any]) -> onnx.ModelProto:
    steps = [f"x{step}" for step in range(STEPS)]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["projected"]),
        helper.make_node("Add", ["projected", "b"], ["biased"]),
        helper.make_node("Split", ["biased"], steps, axis=0, num_outputs=STEPS),
        helper.make_node("Squeeze", ["x0", "axis"], ["s0"]),
        helper.make_node("Tanh", ["s0"], ["h0"]),
    ]
    for step in range(1, STEPS):
        last = "h" if step == STEPS - 1 else f"h{step}"
        nodes += [
            helper.make_node("Squeeze", [f"x{step}", "axis"], [f"s{step}"]),
            helper.make_node("Gemm", [f"h{step - 1}", "r", f"s{step}"], [f"g{step}"]),
            helper.make_node("Tanh", [f"g{step}"], [last]),
        ]
    return _model(nodes, {"w": kernel.T.copy(), "r": recurrent.T.copy(), "b": bias, "axis": np.array([0])})


def _fastest(graph: onnx.ModelProto, values: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
    session, times = open_session(graph), []
    for _ in range(WARM_UP + ROUNDS):
        began = perf_counter()
        answer = session.run(None, {"x": values})[0]
        times.append((perf_counter() - began) * 1e3)
    return min(times[WARM_UP:]), answer.reshape(-1, UNITS)


@pytest.mark.timeout(600)
def test_ways_to_write_a_simple_rnn() -> None:
    rng = np.random.default_rng(0)
    kernel, recurrent, bias = (
        rng.normal(scale=scale, size=size).astype(np.float32)
        for scale, size in ((0.2, (UNITS, FEATURES)), (0.1, (UNITS, UNITS)), (0.1, UNITS))
    )
    affine = {"activations": ["Sigmoid", "Affine", "Tanh"], "activation_alpha": [1.0], "activation_beta": [0.0]}
    ways = {
        "RNN": _operator("RNN", kernel, recurrent, [bias]),
        "GRU, gates held open": _operator("GRU", kernel, recurrent, [SHUT, OPEN, bias]),
        "LSTM that carries nothing over": _operator("LSTM", kernel, recurrent, [OPEN, OPEN, SHUT, bias], **affine),
        "a node for each step (what is exported)": _unrolled(kernel, recurrent, bias),
        "RNN with relu: another result": _operator("RNN", kernel, recurrent, [bias], activations=["Relu"]),
    }
    rows = []
    for batch in BATCHES:
        values = rng.normal(size=(STEPS, batch, FEATURES)).astype(np.float32)
        measured = {name: _fastest(graph, values) for name, graph in ways.items()}
        base, expected = measured["RNN"]
        for name, (ms, answer) in measured.items():
            if "relu" not in name:
                np.testing.assert_allclose(answer, expected, atol=1e-5, rtol=0)
            rows.append([name, str(batch), f"{ms:.2f}", f"{base / ms:.1f}"])
    lines = [
        f"{machine()} SimpleRNN 64, {STEPS} steps of {FEATURES} values, ONNX Runtime with one thread, the fastest of",
        f"{ROUNDS} runs in ms; the ratio is against the first way in the same run. The operator computes its",
        "activation value by value, as relu, of another result, shows.",
        "",
        *table(("way", "batch", "ms", "ratio"), rows),
    ]
    write_section("Ways to write a SimpleRNN", lines)
