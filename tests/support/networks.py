"""Small networks for what depends on the kind of network; they are their own reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from support.exports import COLUMNS, ROWS, runner

from radserve_export.graphs import BATCH, NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import new_model
from radserve_export.network import Network


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
