"""Random weights under which a network's layers all matter: signals neither die out nor explode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radserve_export.from_keras._tensorflow import keras

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SCALES = ("gamma", "scale", "moving_variance")


def randomise(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give a model weights whose variance each layer keeps, normalisation statistics included."""
    rng = np.random.default_rng(seed)
    by_channel = (keras.layers.DepthwiseConv2D, keras.layers.DepthwiseConv1D)
    depthwise = [layer.kernel.path for layer in model._flatten_layers() if isinstance(layer, by_channel)]
    for weight in model.weights:
        shape = tuple(weight.shape)
        if weight.name in _SCALES:
            weight.assign(rng.uniform(0.5, 1.5, shape))
        elif len(shape) > 1:
            fan_in = shape[-1] if weight.name == "embeddings" else np.prod(shape[:-1])
            if weight.path in depthwise or weight.name == "depthwise_kernel":
                fan_in = np.prod(shape[:-2])
            weight.assign(rng.normal(0, 1.4 / np.sqrt(fan_in), shape))
        elif weight.dtype.startswith("float"):
            weight.assign(rng.normal(0, 0.1, shape))
    return model


def settle(model: keras.Model, inputs: NDArray[np.float32]) -> keras.Model:
    """Let every BatchNormalization take its statistics from a batch, as training does.

    A variance near zero would make rounding errors large: none is taken below 0.1.
    """
    normalisations = []
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
            normalisations.append(layer)
        elif isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    model(inputs, training=True)
    for layer in normalisations:
        layer.moving_variance.assign(np.maximum(layer.moving_variance, 0.1))
    return model
