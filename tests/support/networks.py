"""Small networks for what depends on the kind of network; they are their own reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from support.exports import COLUMNS, ROWS, runner

from radserve.contracts import EVIDENCE
from radserve_export.graphs import BATCH, NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import new_model
from radserve_export.graphs.evidence import EXPLAINED, describe_evidence
from radserve_export.network import Network, Part


def _network(nodes: list[onnx.NodeProto], weights: dict[str, Any]) -> Network:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(NETWORK_INPUT, TensorProto.FLOAT, [BATCH, ROWS, COLUMNS, 1])],
        [helper.make_tensor_value_info(NETWORK_OUTPUT, TensorProto.FLOAT, [BATCH, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = new_model(graph)
    return Network(graph=model, reference=runner(model), vocabulary=None, source_sha256="0" * 64, tools={})


def convolutional_network() -> Network:
    """A convolution on ``(ROWS, COLUMNS, 1)``, the mean of its maps, three classes."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(size=(8, 1, 2, 2)).astype(np.float32),
        "dense": rng.normal(size=(8, 3)).astype(np.float32),
        "axes": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Transpose", [NETWORK_INPUT], ["nchw"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "kernel"], ["maps"], "conv"),
        helper.make_node("Relu", ["maps"], ["relu"], "relu"),
        helper.make_node("ReduceMean", ["relu", "axes"], ["mean"], "mean", keepdims=0),
        helper.make_node("MatMul", ["mean", "dense"], ["logits"], "matmul"),
        helper.make_node("Softmax", ["logits"], [NETWORK_OUTPUT], "softmax"),
    ]
    return _network(nodes, weights)


def recurrent_network() -> Network:
    """An LSTM over the rows of ``(ROWS, COLUMNS, 1)``, three classes."""
    rng = np.random.default_rng(0)
    units = 4
    weights = {
        "w": rng.normal(size=(1, 4 * units, COLUMNS)).astype(np.float32),
        "r": rng.normal(size=(1, 4 * units, units)).astype(np.float32),
        "dense": rng.normal(size=(units, 3)).astype(np.float32),
        "last": np.array([3]),
        "first": np.array([0]),
    }
    nodes = [
        helper.make_node("Squeeze", [NETWORK_INPUT, "last"], ["steps"], "squeeze"),
        helper.make_node("Transpose", ["steps"], ["time_major"], "transpose", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["time_major", "w", "r"], ["", "hidden"], "lstm", hidden_size=units),
        helper.make_node("Squeeze", ["hidden", "first"], ["state"], "state"),
        helper.make_node("MatMul", ["state", "dense"], ["logits"], "matmul"),
        helper.make_node("Softmax", ["logits"], [NETWORK_OUTPUT], "softmax"),
    ]
    return _network(nodes, weights)


def overflowing_network() -> Network:
    """Three classes; half floats cut its weights to a quarter, and with them its logits."""
    rng = np.random.default_rng(0)
    weights = {
        "dense": (np.sign(rng.normal(size=(ROWS * COLUMNS, 3))) * 4 * 65504).astype(np.float32),
        "small": np.array(2e-3, np.float32),
    }
    nodes = [
        helper.make_node("Flatten", [NETWORK_INPUT], ["flat"], "flat"),
        helper.make_node("Mul", ["flat", "small"], ["scaled"], "scaled"),
        helper.make_node("MatMul", ["scaled", "dense"], ["large"], "dense"),
        helper.make_node("Mul", ["large", "small"], ["logits"], "logits"),
        helper.make_node("Softmax", ["logits"], [NETWORK_OUTPUT], "softmax"),
    ]
    return _network(nodes, weights)


def evidence_network(*, strength: tuple[float, float, float] = (3, 2, 1), trained: int = 0) -> Network:
    """Logits and an evidence map: bright pixels speak for the first label, dark ones for the second, all for the third.

    Args:
        strength: Of each label's logit.
        trained: The number of the trained file that it is of.
    """
    weights = {
        "dense": np.array([[1, 0, 1], [0, 1, 1]], np.float32) * np.asarray(strength, np.float32),
        "places": np.array([1, 2]),
        "channels": np.array([-1]),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
    }
    forward = [
        helper.make_node("Neg", [NETWORK_INPUT], ["inverse"], "inverse"),
        helper.make_node("Concat", [NETWORK_INPUT, "inverse"], ["both"], "both", axis=-1),
        helper.make_node("Relu", ["both"], ["maps"], "maps"),
        helper.make_node("ReduceMean", ["maps", "places"], ["mean"], "mean", keepdims=0),
        helper.make_node("MatMul", ["mean", "dense"], [NETWORK_OUTPUT], "matmul"),
    ]
    backward = [
        helper.make_node("Transpose", ["dense"], ["back"], "back"),
        helper.make_node("MatMul", [EXPLAINED, "back"], ["weights"], "weights"),
        helper.make_node("Unsqueeze", ["weights", "places"], ["weights_nhwc"], "weights_nhwc"),
        helper.make_node("Mul", ["maps", "weights_nhwc"], ["weighted"], "weighted"),
        helper.make_node("ReduceSum", ["weighted", "channels"], ["support"], "support", keepdims=0),
        helper.make_node("Relu", ["support"], ["positive"], "positive"),
        helper.make_node("ReduceMax", ["positive", "places"], ["largest"], "largest"),
        helper.make_node("Greater", ["largest", "zero"], ["is_shown"], "is_shown"),
        helper.make_node("Where", ["is_shown", "largest", "one"], ["divisor"], "divisor"),
        helper.make_node("Div", ["positive", "divisor"], [EVIDENCE], "evidence"),
    ]
    plain = _network(forward, {name: weights[name] for name in ("dense", "places")})
    shape: list[int | str | None] = [BATCH, ROWS, COLUMNS]
    graph = helper.make_graph(
        [*forward, *backward],
        "network",
        [*plain.graph.graph.input, helper.make_tensor_value_info(EXPLAINED, TensorProto.FLOAT, [BATCH, 3])],
        [*plain.graph.graph.output, helper.make_tensor_value_info(EVIDENCE, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    explained = new_model(graph)
    describe_evidence(explained, "maps", None)
    part = Part(graph=explained, reference=runner(explained))
    return replace(plain, source_sha256=f"{trained:064x}", parts={"evidence": part})
