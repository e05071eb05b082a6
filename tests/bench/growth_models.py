"""One convolutional classifier, as large as asked for, exported without TensorFlow."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from support.exports import image_spec, runner, write_spec

from radserve_export.graphs import BATCH, NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import new_model
from radserve_export.network import Network
from radserve_export.pipeline import export

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

WIDTH = 24
"""Maps of the first layer where nothing else is asked for."""
_CLASSES = 3


def parameters(width: int) -> int:
    """Numbers that the network learns."""
    return 9 * (width + 2 * width**2 + 8 * width**2) + 4 * width * _CLASSES


def classifier(size: int, width: int) -> Network:
    """Three layers of 3 x 3 convolutions, the first two pooled, the mean of the maps; fully convolutional.

    Args:
        size: Rows and columns of its images.
        width: Maps of the first layer; the others have two and four times as many.
    """
    rng = np.random.default_rng(0)
    weights = {"axes": np.array([2, 3])}
    nodes = [helper.make_node("Transpose", [NETWORK_INPUT], ["maps0"], "transpose", perm=[0, 3, 1, 2])]
    shapes = [(width, 1), (2 * width, width), (4 * width, 2 * width)]
    for number, (made, taken) in enumerate(shapes):
        kernel = rng.standard_normal((made, taken, 3, 3), np.float32) * np.sqrt(2 / 9 / taken, dtype=np.float32)
        weights[f"kernel{number}"] = kernel
        last = number == len(shapes) - 1
        relu, after = (f"maps{number + 1}", "") if last else (f"relu{number}", f"maps{number + 1}")
        convolved = [f"maps{number}", f"kernel{number}"]
        nodes += [
            helper.make_node("Conv", convolved, [f"conv{number}"], f"conv{number}", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"conv{number}"], [relu], f"relu{number}"),
        ]
        if not last:
            nodes.append(helper.make_node("MaxPool", [relu], [after], after, kernel_shape=[2, 2], strides=[2, 2]))
    weights["dense"] = rng.standard_normal((4 * width, _CLASSES), np.float32) / np.sqrt(4 * width, dtype=np.float32)
    nodes += [
        helper.make_node("ReduceMean", [f"maps{len(shapes)}", "axes"], ["mean"], "mean", keepdims=0),
        helper.make_node("MatMul", ["mean", "dense"], ["logits"], "matmul"),
        helper.make_node("Softmax", ["logits"], [NETWORK_OUTPUT], "softmax"),
    ]
    model = new_model(_graph(nodes, size, weights))
    return Network(graph=model, reference=runner(model), vocabulary=None, source_sha256="0" * 64, tools={})


def _graph(nodes: list[onnx.NodeProto], size: int, weights: dict[str, NDArray[Any]]) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(NETWORK_INPUT, TensorProto.FLOAT, [BATCH, size, size, 1])],
        [helper.make_tensor_value_info(NETWORK_OUTPUT, TensorProto.FLOAT, [BATCH, _CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )


def publish(folder: Path, name: str, *, size: int = 28, width: int = WIDTH, largest: int = 64) -> Path:
    """Export one model of uint8 images into ``folder/models``; returns its fused graph.

    Args:
        folder: For the spec and the repository.
        name: Of the public model.
        size: Rows and columns of its images.
        width: See ``classifier``.
        largest: Inputs in a batch; the exporter compares so many.
    """
    spec = image_spec(
        name=name,
        input={"kind": "image", "modalities": ["DX"], "rows": size, "columns": size, "window": {"kind": "file"}},
        serving={"max_batch_size": largest},
    )
    network = classifier(size, width)
    with patch("radserve_export.pipeline.converted_network", lambda *_args, **_options: nullcontext(network)):
        export(write_spec(folder, spec), folder / "models")
    return folder / "models" / f"{name}_pipeline" / "1" / "model.onnx"


def copies(folder: Path, name: str, count: int) -> Path:
    """A repository of many models: copies of an exported one under numbered names."""
    repository = folder / f"{name}_{count}_times"
    for number in range(count if not repository.exists() else 0):
        for step in (name, f"{name}_pipeline"):
            copy = repository / step.replace(name, f"{name}{number:03}")
            shutil.copytree(folder / "models" / step, copy)
            config = copy / "config.pbtxt"
            config.write_text(config.read_text(encoding="utf-8").replace(name, f"{name}{number:03}"), encoding="utf-8")
    return repository
