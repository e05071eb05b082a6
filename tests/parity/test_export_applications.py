"""Keras' applications: equal to Keras on random images, no axes turned between convolutions.

What is counted: every Transpose of the served graph, and every Reshape that
could stand for one (four axes in, four axes out). One Transpose is allowed: the
image's channels, last in Keras, come first for ONNX' convolutions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from support.weights import randomise, settle

from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.convert import convert
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain

# Largest difference, relative to the largest logit. With random weights rounding errors grow from layer to layer:
# in InceptionV3 Keras' own float32 differs from float64 by 1.1e-4, and ONNX Runtime's by 0.8e-4.
BOUND = 2e-4
# Rows and columns, small but enough for every stage; largest value of a pixel.
APPLICATIONS = {
    "MobileNetV3Small": (64, 255),
    "ResNet50V2": (64, 1),
    "DenseNet121": (64, 1),
    "InceptionV3": (107, 1),
    "Xception": (71, 1),
    "VGG16": (32, 1),
    "EfficientNetV2B0": (64, 255),
    "NASNetMobile": (64, 1),
    "ConvNeXtTiny": (64, 255),
}
_QUICK = ("MobileNetV3Small",)
_CASES = [name if name in _QUICK else pytest.param(name, marks=pytest.mark.full) for name in APPLICATIONS]


def _model(name: str, size: int, brightest: float) -> keras.Model:
    application = getattr(keras.applications, name)
    options: dict[str, Any] = {"weights": None, "input_shape": (size, size, 3), "classes": 10}
    model = randomise(application(classifier_activation=None, **options))
    images = np.random.default_rng(1).uniform(0, brightest, (16, size, size, 3))
    return settle(model, images.astype(np.float32))


def _turns(model: onnx.ModelProto) -> list[str]:
    """Every Transpose, and every Reshape from four axes to four."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    rank = {v.name: len(v.type.tensor_type.shape.dim) for v in (*graph.input, *graph.value_info, *graph.output)}
    return [
        node.op_type
        for node in graph.node
        if node.op_type == "Transpose"
        or (node.op_type == "Reshape" and rank[node.input[0]] == rank[node.output[0]] == 4)
    ]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", _CASES)
def test_an_application_is_equal_to_keras_and_turns_its_axes_once(name: str) -> None:
    size, brightest = APPLICATIONS[name]
    model = _model(name, size, brightest)
    network = convert(model, source_sha256="0" * 64)
    images = np.random.default_rng(0).uniform(0, brightest, (3, size, size, 3)).astype(np.float32)
    got = Chain([network.graph])({NETWORK_INPUT: images})[NETWORK_OUTPUT]
    want = np.asarray(model(images, training=False))
    largest = np.abs(want).max()
    difference = np.abs(got - want).max() / largest
    assert np.ptp(want, axis=0).max() > 0.01 * largest, "images must differ for the comparison to mean something"
    assert difference <= BOUND
    assert _turns(network.graph) == ["Transpose"]
