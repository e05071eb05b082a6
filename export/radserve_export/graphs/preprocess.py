"""The graph from the wire's integers to what the network was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, compose, helper, numpy_helper

from radserve.contracts import Datatype, TensorSpec
from radserve_export.graphs import BATCH, NETWORK_INPUT, TOKEN_IDS
from radserve_export.graphs.checked import ELEMENT_TYPES, new_model, signature

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from radserve_export.spec import NetworkInput


def preprocess_graph(wire: TensorSpec, scaling: NetworkInput) -> onnx.ModelProto:
    """``NETWORK_INPUT = (float32(wire) * scale - mean) / std``.

    Args:
        wire: The public input; mean and std apply to its last axis.
        scaling: Scale, mean and standard deviation.

    Returns:
        A model from the wire to NETWORK_INPUT, float32, with a free batch axis.
    """
    shape: list[int | str | None] = [BATCH, *wire.dims]
    nodes = [helper.make_node("Cast", [wire.name], ["cast"], "cast", to=TensorProto.FLOAT)]
    initializers = []
    for kind, name, values, neutral in (
        ("Mul", "scale", (scaling.scale,), 1.0),
        ("Sub", "mean", scaling.mean, 0.0),
        ("Div", "std", scaling.std, 1.0),
    ):
        if any(value != neutral for value in values):
            constant = np.asarray(values, np.float32)
            initializers.append(numpy_helper.from_array(constant, name))
            nodes.append(helper.make_node(kind, [nodes[-1].output[0], name], [f"{name}d"], name))
    nodes[-1].output[0] = NETWORK_INPUT
    graph = helper.make_graph(
        nodes,
        "preprocess",
        [helper.make_tensor_value_info(wire.name, ELEMENT_TYPES[wire.dtype], shape)],
        [helper.make_tensor_value_info(NETWORK_INPUT, TensorProto.FLOAT, shape)],
        initializers,
    )
    return new_model(graph)


def preprocess_reference(array: NDArray[np.generic], scaling: NetworkInput) -> NDArray[np.float32]:
    """What the preprocess graph computes, in numpy.

    Args:
        array: Wire values, any shape; the last axis is that of mean and std.
        scaling: Scale, mean and standard deviation.
    """
    mean, std = np.asarray(scaling.mean, np.float32), np.asarray(scaling.std, np.float32)
    scaled: NDArray[np.float32] = (array.astype(np.float32) * np.float32(scaling.scale) - mean) / std
    return scaled


def take_token_ids(network: onnx.ModelProto, max_tokens: int) -> onnx.ModelProto:
    """Let a text network take TOKEN_IDS as the tokenize step gives them.

    Args:
        network: Takes NETWORK_INPUT of any numeric type.
        max_tokens: Length of TOKEN_IDS.

    Returns:
        The same network behind TOKEN_IDS, int32.
    """
    (taken,), _ = signature(network)
    kind = ELEMENT_TYPES[taken.dtype]
    node = (
        helper.make_node("Identity", [TOKEN_IDS], [NETWORK_INPUT], "token_ids")
        if taken.dtype is Datatype.INT32
        else helper.make_node("Cast", [TOKEN_IDS], [NETWORK_INPUT], "token_ids", to=kind)
    )
    graph = helper.make_graph(
        [node],
        "token_ids",
        [helper.make_tensor_value_info(TOKEN_IDS, TensorProto.INT32, [BATCH, max_tokens])],
        [helper.make_tensor_value_info(NETWORK_INPUT, kind, [BATCH, max_tokens])],
    )
    cast = new_model(graph)
    merged = compose.merge_models(cast, network, io_map=[(NETWORK_INPUT, NETWORK_INPUT)], prefix1=None)
    merged.producer_name = "radserve"
    return merged
