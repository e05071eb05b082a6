"""Specs and networks of a segmentation whose answers are easy to foresee."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from support.exports import label, runner
from support.outlines import COLUMNS, ROWS

from radserve_export.graphs import BATCH, NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import new_model
from radserve_export.network import Network

# Logits of the three classes are weight * pixel + bias.
_WEIGHTS, _BIASES = (0.0, 8.0, 24.0), (0.0, -2.0, -17.0)


def segmentation_spec(**changes: Any) -> dict[str, Any]:
    """A spec of an organ and a lesion in it."""
    spec: dict[str, Any] = {
        "name": "outlines",
        "task": "image_segmentation",
        "model": "outlines.keras",
        "input": {
            "kind": "image",
            "modalities": ["CT"],
            "absent_attributes": "accept",
            "rows": ROWS,
            "columns": COLUMNS,
            "window": {"kind": "fixed", "center": 100.5, "width": 201},
        },
        "network_input": {"scale": 1 / 255},
        "network_output": "logits",
        "exclusive": True,
        "labels": [label("organ"), label("lesion")],
    }
    return {name: value for name, value in (spec | changes).items() if value is not None}


def pixel_network(classes: int = 3, *, rows: int = ROWS, columns: int = COLUMNS, slices: int | None = None) -> Network:
    """Logits of each pixel from its brightness alone; it is its own reference.

    Args:
        classes: 3 gives background, organ and lesion; 1 gives the organ's logit.
        rows: Height of the image.
        columns: Its width.
        slices: Of a volume, how many it has.
    """
    grid = [rows, columns] if slices is None else [slices, rows, columns]
    weights, biases = (_WEIGHTS, _BIASES) if classes > 1 else (_WEIGHTS[1:2], _BIASES[1:2])
    given: list[int | str | None] = [BATCH, *grid, classes]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [NETWORK_INPUT, "weights"], ["weighted"], "weigh"),
            helper.make_node("Add", ["weighted", "biases"], [NETWORK_OUTPUT], "shift"),
        ],
        "network",
        [helper.make_tensor_value_info(NETWORK_INPUT, TensorProto.FLOAT, [BATCH, *grid, 1])],
        [helper.make_tensor_value_info(NETWORK_OUTPUT, TensorProto.FLOAT, given)],
        [
            numpy_helper.from_array(np.array([weights], np.float32), "weights"),
            numpy_helper.from_array(np.array(biases, np.float32), "biases"),
        ],
    )
    model = new_model(graph)
    return Network(graph=model, reference=runner(model), vocabulary=None, source_sha256="0" * 64, tools={"keras": "3"})
