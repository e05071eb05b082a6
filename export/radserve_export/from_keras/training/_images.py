"""What the training of all image classifiers has in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import ImageInput
from radserve.errors import SpecError
from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.training._generated import generate_dataset
from radserve_export.from_keras.training._guided import guided_step
from radserve_export.graphs.preprocess import preprocess_reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from radserve_export.from_keras.training import Dataset, Progress
    from radserve_export.spec import Spec

_BATCH = 64
_LEARNING_RATE = 2e-3
_SEED_WITHOUT_SPEC = 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an image classifier is trained.

    Attributes:
        build: Makes the untrained network of the image's rows, columns and
            channels, the number of labels, and its name.
        images_seen: Little data is seen more often, much data less often.
        epochs: Fewest and most.
        weight_decay: Of AdamW.
        shift: An image is moved by up to so many pixels.
        is_mirrored: Whether left and right may change places.
        guidance: Weight of the evidence map's part of the loss, where it is known
            where lesions lie; see ``guided_step``.
    """

    build: Callable[[tuple[int, int, int], int, str], keras.Model]
    images_seen: int
    epochs: tuple[int, int]
    weight_decay: float
    shift: int
    is_mirrored: bool
    guidance: float = 0.0


def train_classifier(spec: Spec, data: Dataset | None, progress: Progress, recipe: Recipe) -> keras.Model:
    """Train a network on wire arrays, scaled as the served model scales them.

    Args:
        spec: Says the image's size, the labels and the scaling; with ``data``
            None, also how many phantoms to generate, from which seed.
        data: The user's own images, ``x`` of shape ``(n, rows, columns,
            channels)``; None generates phantoms and reads them with the SDK.
        progress: Told of images generated and epochs trained.
        recipe: The network, and how it is trained.

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
    shape = (described.rows, described.columns, described.channels), len(spec.labels), spec.name
    network = recipe.build(*shape)
    _fit(network, replace(data, x=preprocess_reference(data.x, spec.network_input)), progress, recipe)
    trained = recipe.build(*shape)  # without the optimizer, two thirds of the saved file
    trained.set_weights(network.get_weights())
    return trained


def _fit(network: keras.Model, data: Dataset, progress: Progress, recipe: Recipe) -> None:
    images: NDArray[np.float32] = data.x.astype(np.float32, copy=False)
    epochs = int(np.clip(round(recipe.images_seen / len(images)), *recipe.epochs))
    steps = epochs * -(-len(images) // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
    network.compile(keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay), "sparse_categorical_crossentropy")
    step, places = network.train_on_batch, None
    if recipe.guidance and data.places is not None:
        step, places = guided_step(network, recipe.guidance), data.places
    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        order = rng.permutation(len(images))
        varied, moved = _augment(images[order], None if places is None else places[order], rng, recipe)
        fed = [varied, data.y[order], *([] if moved is None else [moved])]
        for start in range(0, len(images), _BATCH):  # fit() would set itself up anew for each epoch's images
            step(*(array[start : start + _BATCH] for array in fed))
        progress(f"Training {network.name}", epoch + 1, epochs)


def _augment(
    images: NDArray[np.float32], places: NDArray[np.float32] | None, rng: np.random.Generator, recipe: Recipe
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Move each image by a few pixels, vary contrast and brightness a little, mirror half of them if allowed.

    The places of lesions move along.
    """
    shape = (len(images), 1, 1, 1)
    middle, spread = images.mean(), images.std()
    down, right = rng.integers(0, 2 * recipe.shift + 1, (2, len(images)))
    contrast = rng.uniform(0.9, 1.1, shape).astype(np.float32)
    brightness = rng.uniform(-0.2, 0.2, shape).astype(np.float32) * spread
    moved = _moved(images, down, right, recipe.shift)
    changed: NDArray[np.float32] = (moved - middle) * contrast + middle + brightness
    shown = None if places is None else _moved(places[..., np.newaxis], down, right, recipe.shift)[..., 0]
    if recipe.is_mirrored:
        mirrored = rng.random(len(images)) < 0.5  # noqa: PLR2004 - half of them
        for arrays in (changed, shown):
            if arrays is not None:
                arrays[mirrored] = arrays[mirrored, :, ::-1]
    return changed, shown


def _moved(
    images: NDArray[np.float32], down: NDArray[np.int64], right: NDArray[np.int64], most: int
) -> NDArray[np.float32]:
    padded: NDArray[np.float32] = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:3], axis=(1, 2))  # type: ignore[call-overload]  # NumPy 1.26's stub takes one axis
    found: NDArray[np.float32] = np.moveaxis(windows[np.arange(len(images)), down, right], 1, -1)
    return found
