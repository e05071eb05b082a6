"""Training of ``ct_lesion``: a small U-Net (Ronneberger et al., MICCAI 2015) on abdomen phantoms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import ImageInput, Task
from radserve.dicom import read_image
from radserve.errors import SpecError
from radserve.preprocess import image_to_wire, placement_of, to_wire_grid
from radserve_export.from_keras._tensorflow import keras
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve.preprocess import Placement
    from radserve_export.from_keras.training import Dataset, Progress
    from radserve_export.spec import Spec

_FILTERS = (8, 16, 32, 48)  # from full resolution to an eighth of it
_BATCH = 16
_EPOCHS = 10
_LEARNING_RATE = 3e-3
_SMOOTH = 1.0  # pixels added to both sides of the Dice fraction: an absent class is right at 1


def train(spec: Spec, data: Dataset | None, progress: Progress) -> keras.Model:
    """Train the network on phantoms, read and scaled as the served model reads and scales them.

    Args:
        spec: Says the image's size, the labels, the scaling, and how many
            phantoms to generate from which seed.
        data: Must be None: a label for each image does not say where it is.
        progress: Told of images generated and epochs trained.

    Returns:
        The trained network, without optimizer: ``(n, rows, columns, channels)``
        float32 in, probabilities ``(n, rows, columns, 1 + labels)`` out, the
        background first.

    Raises:
        SpecError: The spec is not one of a segmentation, its image cannot be
            halved three times, or data is given.
    """
    described, plan = spec.input, spec.training
    if not isinstance(described, ImageInput) or spec.task is not Task.IMAGE_SEGMENTATION or plan is None:
        msg = f"{spec.name}: this network needs task image_segmentation, an image input and a training block"
        raise SpecError(msg)
    if data is not None:
        msg = f"training of {spec.name} needs label maps, which --data has no place for: leave --data out"
        raise SpecError(msg)
    if described.rows % 8 or described.columns % 8:
        msg = f"{spec.name}: this network needs rows and columns that are multiples of 8"
        raise SpecError(msg)
    images, maps = wire_samples(plan.samples, described, seed=plan.seed, split=Split.TRAIN, progress=progress)
    keras.utils.set_random_seed(plan.seed)
    image = (described.rows, described.columns, described.channels)
    network = build_network(image, 1 + len(spec.labels))
    _fit(network, preprocess_reference(images, spec.network_input), maps, progress)
    trained = build_network(image, 1 + len(spec.labels))  # without the optimizer, two thirds of the saved file
    trained.set_weights(network.get_weights())
    return trained


def build_network(
    image: tuple[int, int, int], classes: int, filters_of_levels: tuple[int, ...] = _FILTERS
) -> keras.Model:
    """Build the untrained network.

    Args:
        image: Rows, columns and channels; the first two multiples of 8.
        classes: Number of classes, the background included.
        filters_of_levels: From full resolution down, each of half the one before.
    """
    layers = keras.layers
    taken = keras.Input(image, name="image")
    skipped, x = [], taken
    for level, filters in enumerate(filters_of_levels):
        if level:
            x = layers.MaxPooling2D(2, name=f"pool_{level}")(x)
        x = _two_convolutions(x, filters, f"down_{level}")
        skipped.append(x)
    for level, filters in reversed(list(enumerate(filters_of_levels[:-1]))):
        x = layers.Conv2DTranspose(filters, 2, strides=2, name=f"up_{level}_enlarge")(x)
        x = layers.Concatenate(name=f"up_{level}_skip")([skipped[level], x])
        x = _two_convolutions(x, filters, f"up_{level}")
    given = layers.Conv2D(classes, 1, activation="softmax", name="probabilities")(x)
    return keras.Model(taken, given, name="ct_lesion")


def _two_convolutions(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    for number in (1, 2):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"{name}_conv_{number}"
        )(x)
    return x


def wire_samples(
    count: int, described: ImageInput, *, seed: int, split: Split, progress: Progress
) -> tuple[NDArray[np.generic], NDArray[np.uint8]]:
    """Generate phantoms, and bring image and truth to the wire with the SDK's geometry.

    Args:
        count: How many.
        described: The model's input.
        seed: Of the generator.
        split: Of the generator.
        progress: Told after each sample.

    Returns:
        Wire arrays ``(count, rows, columns, channels)`` and label maps ``(count, rows, columns)``.
    """
    images, maps = [], []
    for sample in generate("ct_lesion", count, seed=seed, split=split):
        assert sample.truth is not None  # noqa: S101 - what this generator is for
        rows, columns = sample.truth.shape
        image = read_image(sample.source)
        images.append(image_to_wire(image, described))
        maps.append(_to_wire(sample.truth, placement_of((rows, columns), described, image.pixel_aspect)))
        progress("generating data", len(images), count)
    return np.stack(images), np.stack(maps)


def _to_wire(truth: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """Each wire pixel gets the label that most of it has."""
    shares = [to_wire_grid((truth == label).astype(np.float32), placement) for label in range(1, int(truth.max()) + 1)]
    background = 1 - np.sum(shares, axis=0, dtype=np.float32)
    most: NDArray[np.uint8] = np.argmax(np.stack([background, *shares]), axis=0).astype(np.uint8)
    return most


def _dice_and_cross_entropy(truth: keras.KerasTensor, p: keras.KerasTensor) -> keras.KerasTensor:
    """Cross-entropy plus one minus the mean Dice of the labels over the batch (Milletari et al., 3DV 2016)."""
    ops = keras.ops
    one_hot = ops.one_hot(ops.cast(truth, "int32"), p.shape[-1])
    overlap, size = ops.sum(one_hot * p, axis=(0, 1, 2)), ops.sum(one_hot + p, axis=(0, 1, 2))
    dice = ops.mean((2 * overlap[1:] + _SMOOTH) / (size[1:] + _SMOOTH))
    entropy = ops.mean(keras.losses.sparse_categorical_crossentropy(truth, p))
    return entropy + 1 - dice


def _fit(network: keras.Model, images: NDArray[np.float32], maps: NDArray[np.uint8], progress: Progress) -> None:
    steps = _EPOCHS * -(-len(images) // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps, warmup_target=_LEARNING_RATE, warmup_steps=50)
    network.compile(keras.optimizers.Adam(rate), _dice_and_cross_entropy)
    told = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, _logs: progress("Training ct_lesion", epoch + 1, _EPOCHS)
    )
    network.fit(images, maps, batch_size=_BATCH, epochs=_EPOCHS, verbose=0, callbacks=[told])
