"""The graph from a segmentation network's output to a label map.

Sending the map instead of the probabilities takes one byte a pixel instead of
four for each class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from radserve.contracts import LABEL_MAP, ImageInput
from radserve_export.graphs import BATCH, NETWORK_OUTPUT
from radserve_export.graphs.checked import new_model

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from radserve_export.spec import Spec

BROKEN = 255


def class_count(spec: Spec) -> int:
    """Values of a pixel that the network gives: one for the background and each label, or one for the only label."""
    return 1 + len(spec.labels) if spec.exclusive else 1


def label_map_graph(spec: Spec) -> onnx.ModelProto:
    """NETWORK_OUTPUT ``(batch, rows, columns, classes)`` -> LABEL_MAP ``(batch, rows, columns)`` uint8.

    Of a volume, both have slices in front of the rows.

    Of exclusive classes the largest value counts, the first of equal ones; a
    softmax would not change which that is. A single label counts from its
    threshold on.

    Args:
        spec: Image size, labels, whether they are exclusive, and the threshold.
    """
    described = cast("ImageInput", spec.input)
    shape: list[int | str | None] = [BATCH, *described.grid]
    constants = []
    if spec.exclusive:
        nodes = [helper.make_node("ArgMax", [NETWORK_OUTPUT], ["label"], "label", axis=-1, keepdims=0)]
    else:
        constants = [numpy_helper.from_array(_edge(spec), "edge"), numpy_helper.from_array(np.array([-1]), "classes")]
        nodes = [
            helper.make_node("Squeeze", [NETWORK_OUTPUT, "classes"], ["value"], "value"),
            helper.make_node("GreaterOrEqual", ["value", "edge"], ["label"], "label"),
        ]
    # What is no number would be background: "nothing there". No label has this value, and no client takes it for one.
    constants += [
        numpy_helper.from_array(np.array(BROKEN, np.uint8), "broken"),
        numpy_helper.from_array(np.array([-1]), "last"),
    ]
    nodes += [
        helper.make_node("Cast", ["label"], ["labels"], "labels", to=TensorProto.UINT8),
        helper.make_node("ReduceSum", [NETWORK_OUTPUT, "last"], ["total"], "total", keepdims=0),
        helper.make_node("IsNaN", ["total"], ["is_broken"], "is_broken"),
        helper.make_node("Where", ["is_broken", "broken", "labels"], [LABEL_MAP], "label_map"),
    ]
    graph = helper.make_graph(
        nodes,
        "postprocess",
        [helper.make_tensor_value_info(NETWORK_OUTPUT, TensorProto.FLOAT, [*shape, class_count(spec)])],
        [helper.make_tensor_value_info(LABEL_MAP, TensorProto.UINT8, shape)],
        constants,
    )
    return new_model(graph)


def label_map_reference(output: NDArray[np.float32], spec: Spec) -> NDArray[np.uint8]:
    """What the graph computes, in numpy.

    Args:
        output: The network's, ``(batch, rows, columns, classes)``.
        spec: As for ``label_map_graph``.
    """
    largest: NDArray[np.uint8] = with_background(output, spec).argmax(axis=-1).astype(np.uint8)
    return largest


def with_background(output: NDArray[np.float32], spec: Spec) -> NDArray[np.float32]:
    """What is compared for each pixel, ``(batch, rows, columns, 1 + labels)``: of the largest the first one counts."""
    if spec.exclusive:
        return output
    # Just below the edge, so that a value on it is the label's.
    background = np.full_like(output, np.nextafter(_edge(spec), np.float32(-np.inf)))
    return np.concatenate([background, output], axis=-1)


def _edge(spec: Spec) -> NDArray[np.float32]:
    """From where on the network's output is the only label: its threshold, as a logit where the network gives those."""
    threshold = np.float64(spec.labels[0].threshold)
    if spec.network_output == "logits":
        with np.errstate(divide="ignore"):  # thresholds of 0 and 1 are infinitely far away
            threshold = np.log(threshold) - np.log1p(-threshold)
    return np.asarray(threshold, np.float32)
