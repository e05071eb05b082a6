"""Training of ``chest_xray``: a small convolutional network on chest phantoms, or on a user's own images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import ImageInput
from radserve.errors import SpecError
from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.training._generated import generate_dataset
from radserve_export.graphs.preprocess import preprocess_reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.from_keras.training import Dataset, Progress
    from radserve_export.spec import Spec

_BATCH = 64
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 2e-3
# Little data is seen more often, much data less often.
_IMAGES_SEEN = 120_000
_FEWEST_EPOCHS, _MOST_EPOCHS = 8, 150
_SEED_WITHOUT_SPEC = 1


def train(spec: Spec, data: Dataset | None, progress: Progress) -> keras.Model:
    """Train the network on wire arrays, scaled as the served model scales them.

    Args:
        spec: Says the image's size, the labels and the scaling; with ``data``
            None, also how many phantoms to generate, from which seed.
        data: The user's own images, ``x`` of shape ``(n, rows, columns,
            channels)``; None generates phantoms and reads them with the SDK.
        progress: Told of images generated and epochs trained.

    Returns:
        The trained network, without optimizer: ``(n, rows, columns, channels)``
        float32 in, probabilities ``(n, labels)`` out.

    Raises:
        SpecError: The spec is not one of exclusive image classes, or does not
            say what to generate.
    """
    described = spec.input
    if not isinstance(described, ImageInput) or not spec.exclusive or len(spec.labels) < 2:  # noqa: PLR2004 - a choice needs two
        msg = f"{spec.name}: this network needs an image input, exclusive: true and two labels or more"
        raise SpecError(msg)
    if data is None:
        data = generate_dataset(spec, described, progress)
    keras.utils.set_random_seed(spec.training.seed if spec.training else _SEED_WITHOUT_SPEC)
    image = (described.rows, described.columns, described.channels)
    network = build_network(image, len(spec.labels))
    _fit(network, preprocess_reference(data.x, spec.network_input), data.y, progress)
    trained = build_network(image, len(spec.labels))  # without the optimizer, two thirds of the saved file
    trained.set_weights(network.get_weights())
    return trained


def build_network(image: tuple[int, int, int], labels: int) -> keras.Model:
    """Build the untrained network.

    Args:
        image: Rows, columns and channels.
        labels: Number of classes.
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(image, name="image"),
            layers.Conv2D(32, 3, activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(64, 3, activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Flatten(name="flatten"),
            layers.Dense(64, activation="relu", name="dense"),
            layers.Dense(labels, activation="softmax", name="probabilities"),
        ],
        name="chest_xray",
    )


def _fit(network: keras.Model, images: NDArray[np.float32], labels: NDArray[np.int64], progress: Progress) -> None:
    epochs = int(np.clip(round(_IMAGES_SEEN / len(images)), _FEWEST_EPOCHS, _MOST_EPOCHS))
    steps = epochs * -(-len(images) // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
    network.compile(keras.optimizers.AdamW(rate, weight_decay=_WEIGHT_DECAY), "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        order = rng.permutation(len(images))
        varied, ordered = _augment(images[order], rng), labels[order]
        for start in range(0, len(images), _BATCH):  # fit() would set itself up anew for each epoch's images
            network.train_on_batch(varied[start : start + _BATCH], ordered[start : start + _BATCH])
        progress("Training chest_xray", epoch + 1, epochs)


def _augment(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Move each image by up to a pixel and vary its contrast and brightness a little."""
    shape = (len(images), 1, 1, 1)
    middle, spread = images.mean(), images.std()
    padded: NDArray[np.float32] = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:3], axis=(1, 2))  # type: ignore[call-overload]  # NumPy 1.26's stub takes one axis
    down, right = rng.integers(0, 3, (2, len(images)))
    moved = np.moveaxis(windows[np.arange(len(images)), down, right], 1, -1)
    contrast = rng.uniform(0.9, 1.1, shape).astype(np.float32)
    brightness = rng.uniform(-0.2, 0.2, shape).astype(np.float32) * spread
    changed: NDArray[np.float32] = (moved - middle) * contrast + middle + brightness
    return changed
