"""Keras' applications with random weights that make their answers differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from support.weights import randomise, settle

from radserve_export.from_keras._tensorflow import keras

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


def application(name: str, typical: NDArray[np.float32], **options: Any) -> keras.Model:
    """Build one that gives logits.

    Args:
        name: Of a function of ``keras.applications``.
        typical: Images as it will see them.
        options: Of that function.
    """
    given = {"weights": None, "input_shape": typical.shape[1:], "classifier_activation": None, **options}
    return settle(randomise(getattr(keras.applications, name)(**given)), typical)


def images(name: str, count: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Random images as one of APPLICATIONS takes them."""
    size, brightest = APPLICATIONS[name]
    return np.random.default_rng(seed).uniform(0, brightest, (count, size, size, 3)).astype(np.float32)
