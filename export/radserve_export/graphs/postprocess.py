"""The graph from the network's output to probabilities and decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from radserve.contracts import DECISIONS, PROBABILITIES
from radserve_export.graphs import BATCH, NETWORK_OUTPUT
from radserve_export.graphs.checked import new_model

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from radserve.contracts import Label
    from radserve_export.spec import Spec

# The smallest normal float32, and the nearest below 1: their logarithms are finite.
_TINY = np.float32(np.finfo(np.float32).tiny)
_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


def decision_edges(labels: tuple[Label, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where indeterminate begins and where positive begins, one value a label."""
    bands = [label.indeterminate or (label.threshold, label.threshold) for label in labels]
    edges = np.asarray(bands, np.float32)
    return edges[:, 0], edges[:, 1]


class _Builder:
    """Nodes in a row, each on the result of the one before."""

    def __init__(self, start: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.last = start

    def constant(self, name: str, value: NDArray[np.generic] | np.float32) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def add(self, kind: str, *inputs: str, name: str, **attributes: Any) -> str:  # noqa: ANN401 - what ONNX takes
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        self.last = name
        return name


def postprocess_graph(spec: Spec) -> onnx.ModelProto:
    """NETWORK_OUTPUT -> PROBABILITIES (float32) and DECISIONS (int8), each ``(batch, labels)``.

    DECISIONS are ``1 + (p >= positive edge) - (p < lower edge)``: a NaN, which is
    neither, comes out indeterminate.

    Args:
        spec: Activation, temperature, labels.
    """
    build = _Builder(NETWORK_OUTPUT)
    _probabilities(build, spec)
    build.add("Identity", build.last, name=PROBABILITIES)
    lower, upper = decision_edges(spec.labels)
    above = build.add("GreaterOrEqual", PROBABILITIES, build.constant("positive_from", upper), name="is_positive")
    above = build.add("Cast", above, name="positive", to=TensorProto.INT32)
    below = build.add("Less", PROBABILITIES, build.constant("negative_below", lower), name="is_negative")
    below = build.add("Cast", below, name="negative", to=TensorProto.INT32)
    apart = build.add("Sub", above, below, name="positive_or_negative")
    level = build.add("Add", apart, build.constant("indeterminate", np.array(1, np.int32)), name="decision")
    build.add("Cast", level, name=DECISIONS, to=TensorProto.INT8)
    shape: list[int | str | None] = [BATCH, len(spec.labels)]
    graph = helper.make_graph(
        build.nodes,
        "postprocess",
        [helper.make_tensor_value_info(NETWORK_OUTPUT, TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, shape),
            helper.make_tensor_value_info(DECISIONS, TensorProto.INT8, shape),
        ],
        list(build.constants.values()),
    )
    return new_model(graph)


def _probabilities(build: _Builder, spec: Spec) -> None:
    temperature = spec.calibration.temperature
    if spec.network_output == "probabilities":
        if temperature == 1:
            return
        # Softmax of log p gives p back, so the logits are known up to what softmax ignores.
        low = build.constant("smallest", _TINY)
        high = build.constant("largest", np.float32(1) if spec.exclusive else _BELOW_ONE)
        clipped = build.add("Clip", NETWORK_OUTPUT, low, high, name="clipped")
        logits = build.add("Log", clipped, name="log_p")
        if not spec.exclusive:
            rest = build.add("Sub", build.constant("one", np.float32(1)), clipped, name="rest")
            build.add("Sub", logits, build.add("Log", rest, name="log_rest"), name="logits")
    if temperature != 1:
        build.add("Div", build.last, build.constant("temperature", np.float32(temperature)), name="tempered")
    if spec.exclusive:
        build.add("Softmax", build.last, name="activated", axis=-1)
    else:
        build.add("Sigmoid", build.last, name="activated")


def postprocess_reference(output: NDArray[np.float32], spec: Spec) -> dict[str, NDArray[Any]]:
    """What the postprocess graph computes, in numpy and float64.

    Args:
        output: The network's output ``(batch, labels)``.
        spec: Activation, temperature, labels.

    Returns:
        PROBABILITIES float32 and DECISIONS int8.
    """
    p = output.astype(np.float64)
    temperature = spec.calibration.temperature
    if spec.network_output == "logits" or temperature != 1:
        p = probabilities_of(logits_of(p, spec) / temperature, spec)
    probabilities = p.astype(np.float32)
    lower, upper = decision_edges(spec.labels)
    decisions = 1 + (probabilities >= upper).astype(np.int8) - (probabilities < lower).astype(np.int8)
    return {PROBABILITIES: probabilities, DECISIONS: decisions.astype(np.int8)}


def logits_of(output: NDArray[np.float64], spec: Spec) -> NDArray[np.float64]:
    """The logits of a network's output, up to what softmax ignores."""
    if spec.network_output == "logits":
        return output
    p = np.clip(output, float(_TINY), 1.0 if spec.exclusive else float(_BELOW_ONE))
    return np.asarray(np.log(p) if spec.exclusive else np.log(p) - np.log1p(-p))


def probabilities_of(logits: NDArray[np.float64], spec: Spec) -> NDArray[np.float64]:
    """Softmax where exactly one label applies, else sigmoid."""
    if spec.exclusive:
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))
