"""Keras' preprocessing layers inside a model: the served graph does what they do, augmentation is gone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.keras_models import keras, layers

from radserve_export.from_keras.convert import convert
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain, all_nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from radserve_export.network import Network

BOUND = 1e-5  # of the largest value


def _adapted() -> Any:
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(1).normal(100, [20, 40, 60], (50, 9, 12, 3)).astype(np.float32))
    return layer


IMAGE_LAYERS: dict[str, Callable[[], Any]] = {
    "Rescaling": lambda: layers.Rescaling(1 / 127.5, offset=-1),
    "Rescaling by channel": lambda: layers.Rescaling([1.0, 2.0, 3.0], offset=[0.5, 0.0, -1.0]),
    "Normalization": lambda: layers.Normalization(mean=[120.0, 110.0, 90.0], variance=[1600.0, 900.0, 400.0]),
    "Normalization, adapted": _adapted,
    "Normalization, inverted": lambda: layers.Normalization(
        mean=[1.0, 2.0, 3.0], variance=[4.0, 9.0, 1.0], invert=True
    ),
    "Resizing smaller": lambda: layers.Resizing(5, 6),
    "Resizing larger": lambda: layers.Resizing(20, 31),
    "Resizing nearest": lambda: layers.Resizing(18, 6, interpolation="nearest"),
    "Resizing bicubic": lambda: layers.Resizing(18, 24, interpolation="bicubic"),
    "Resizing with crop": lambda: layers.Resizing(8, 6, crop_to_aspect_ratio=True),
    "Resizing with padding": lambda: layers.Resizing(16, 16, pad_to_aspect_ratio=True),
    "CenterCrop": lambda: layers.CenterCrop(6, 8),
    "CenterCrop larger": lambda: layers.CenterCrop(14, 20),
}
AUGMENTATION: dict[str, Callable[[], Any]] = {
    "RandomFlip": layers.RandomFlip,
    "RandomRotation": lambda: layers.RandomRotation(0.3),
    "RandomTranslation": lambda: layers.RandomTranslation(0.2, 0.2),
    "RandomZoom": lambda: layers.RandomZoom(0.3),
    "RandomContrast": lambda: layers.RandomContrast(0.3),
    "RandomBrightness": lambda: layers.RandomBrightness(0.3),
    "GaussianNoise": lambda: layers.GaussianNoise(1.0),
    "Dropout": lambda: layers.Dropout(0.5),
}


def _images(rows: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0, 255, (rows, 9, 12, 3)).astype(np.float32)


def _operators(network: Network) -> Counter[str]:
    return Counter(node.op_type for node in all_nodes(network.graph.graph.node))


def _assert_equal(model: keras.Model, network: Network, feed: NDArray[Any]) -> None:
    got = Chain([network.graph])({NETWORK_INPUT: feed})[NETWORK_OUTPUT]
    want = np.asarray(model(feed, training=False))
    assert got.shape == want.shape
    assert np.ptp(want) > 0.01
    np.testing.assert_allclose(got, want, rtol=0, atol=BOUND * np.abs(want).max())


@pytest.mark.parametrize("name", IMAGE_LAYERS)
def test_a_layer_for_images_is_equal_to_keras(name: str) -> None:
    model = keras.Sequential([layers.Input((9, 12, 3)), IMAGE_LAYERS[name]()])
    network = convert(model, source_sha256="")
    for rows in (1, 3):
        _assert_equal(model, network, _images(rows))
    # Keras asks at run time which side is longer, though both are known.
    assert set(_operators(network)) & {"Loop", "If", "Scan"} == ({"If"} if name == "Resizing with padding" else set())


@pytest.mark.parametrize("name", AUGMENTATION)
def test_augmentation_is_gone(name: str) -> None:
    model = keras.Sequential([layers.Input((9, 12, 3)), AUGMENTATION[name](), layers.Rescaling(0.5)])
    network = convert(model, source_sha256="")
    assert _operators(network) == {"Mul": 1}
    _assert_equal(model, network, _images(2))


def test_integer_images_are_rescaled_as_keras_does() -> None:
    model = keras.Sequential(
        [layers.Input((9, 12, 3), dtype="uint8"), layers.Rescaling(1 / 255), layers.Resizing(4, 4), layers.Flatten()]
    )
    _assert_equal(model, convert(model, source_sha256=""), _images(3).astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "make", "values"),
    [
        ("Discretization", lambda: layers.Discretization([0.0, 0.5, 2.0]), np.linspace(-1, 3, 9)),
        ("CategoryEncoding", lambda: layers.CategoryEncoding(5, output_mode="one_hot"), np.arange(5)),
    ],
)
def test_a_layer_for_numbers_is_equal_to_keras(name: str, make: Callable[[], Any], values: NDArray[Any]) -> None:
    del name
    feed = values.reshape(-1, 1).astype(np.float32 if values.dtype.kind == "f" else np.int32)
    model = keras.Sequential([layers.Input((1,), dtype=feed.dtype.name), make()])
    _assert_equal(model, convert(model, source_sha256=""), feed)
