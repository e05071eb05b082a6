"""What a graph with an evidence map says about it, and which label its map explains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from radserve.contracts import EVIDENCE, PROBABILITIES, Evidence
from radserve.errors import ConversionError
from radserve_export.graphs.checked import all_nodes, new_model, signature
from radserve_export.graphs.merge import prefixed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

EXPLAINED = "EXPLAINED"
"""Input of a network with an evidence map: how much of each label's logit to explain, ``(batch, labels)`` float32."""
_PROPERTY = "radserve.evidence"


def most_probable(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """EXPLAINED for the label that a caller finds on top: of equally probable ones the first.

    Args:
        probabilities: ``(n, labels)``.
    """
    labels = np.eye(probabilities.shape[-1], dtype=np.float32)
    return np.asarray(labels[probabilities.argmax(axis=-1)])


def explain_most_probable(network: onnx.ModelProto, postprocess: onnx.ModelProto) -> onnx.ModelProto:
    """Join a network with its postprocessing, so that the map explains the label that the answer puts first.

    The probabilities that are answered choose it, as ``most_probable`` does:
    what the network alone gives may be told apart where they no longer are.

    Args:
        network: NETWORK_INPUT and EXPLAINED to NETWORK_OUTPUT and EVIDENCE.
        postprocess: NETWORK_OUTPUT to PROBABILITIES and others.

    Returns:
        NETWORK_INPUT to what the postprocessing gives, and EVIDENCE.

    Raises:
        ConversionError: The graphs do not fit.
    """
    kept = {"rename_inputs": False, "rename_outputs": False}
    before, after = prefixed(network, "network/", **kept).graph, prefixed(postprocess, "postprocess/", **kept).graph
    # One by one, as not every accelerator's ArgMax keeps to the first of several equal ones.
    choice = [
        helper.make_node("ReduceMax", [PROBABILITIES, "chosen/axis"], ["chosen/largest"], "chosen/largest"),
        helper.make_node("Equal", [PROBABILITIES, "chosen/largest"], ["chosen/is_largest"], "chosen/is_largest"),
        helper.make_node("Cast", ["chosen/is_largest"], ["chosen/ones"], "chosen/ones", to=TensorProto.INT32),
        helper.make_node("CumSum", ["chosen/ones", "chosen/labels"], ["chosen/nth"], "chosen/nth"),
        helper.make_node("Equal", ["chosen/nth", "chosen/one"], ["chosen/until_next"], "chosen/until_next"),
        helper.make_node("And", ["chosen/is_largest", "chosen/until_next"], ["chosen/is_first"], "chosen/is_first"),
        helper.make_node("Cast", ["chosen/is_first"], [EXPLAINED], "chosen/explained", to=TensorProto.FLOAT),
    ]
    constants = {"axis": np.array([-1]), "labels": np.array(-1), "one": np.array(1, np.int32)}
    answers, maps = _apart(before.node)
    graph = helper.make_graph(
        [*answers, *after.node, *choice, *maps],
        network.graph.name,
        [value for value in before.input if value.name != EXPLAINED],
        [*after.output, *(value for value in before.output if value.name == EVIDENCE)],
        [
            *before.initializer,
            *after.initializer,
            *(numpy_helper.from_array(value, f"chosen/{name}") for name, value in constants.items()),
        ],
    )
    return new_model(graph)


def _apart(nodes: Iterable[onnx.NodeProto]) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Nodes that need nothing of EXPLAINED, and those that do."""
    free, bound, needed = [], [], {EXPLAINED}
    for node in nodes:
        if needed.isdisjoint(name for one in all_nodes([node]) for name in one.input):
            free.append(node)
        else:
            bound.append(node)
            needed.update(node.output)
    return free, bound


def describe_evidence(model: onnx.ModelProto, layer: str, region: tuple[float, float, float, float] | None) -> None:
    """Write into a graph where its evidence map comes from.

    Args:
        model: Has an output EVIDENCE; it is changed.
        layer: The convolution's name.
        region: The part of the input that the map covers; see Evidence.
    """
    told = msgspec.json.encode({"layer": layer, "region": region}).decode()
    model.metadata_props.add(key=_PROPERTY, value=told)


def evidence_of(model: onnx.ModelProto) -> Evidence | None:
    """The evidence map of a converted network; None if it gives none.

    Raises:
        ConversionError: It does not say where it comes from.
    """
    given = {tensor.name: tensor.dims for tensor in signature(model, batched=False)[1]}
    if EVIDENCE not in given:
        return None
    told = {entry.key: entry.value for entry in model.metadata_props}.get(_PROPERTY, "null")
    try:
        _, rows, columns = given[EVIDENCE]
        return msgspec.convert(msgspec.json.decode(told) | {"rows": rows, "columns": columns}, Evidence)
    except (TypeError, ValueError) as error:
        msg = f"graph {model.graph.name} does not say what its evidence map shows: {error}"
        raise ConversionError(msg) from error
