"""Training of ``chest_xray``: a small convolutional network on chest phantoms, or on a user's own images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.training._images import Recipe, train_classifier

if TYPE_CHECKING:
    from radserve_export.from_keras.training import Dataset, Progress
    from radserve_export.spec import Spec


def train(spec: Spec, data: Dataset | None, progress: Progress) -> keras.Model:
    """Train the network; see ``train_classifier``."""
    return train_classifier(spec, data, progress, _RECIPE)


def build_network(image: tuple[int, int, int], labels: int, name: str = "chest_xray") -> keras.Model:
    """Build the untrained network.

    Args:
        image: Rows, columns and channels.
        labels: Number of classes.
        name: The network's name.
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
        name=name,
    )


_RECIPE = Recipe(
    build=build_network,
    images_seen=240_000,
    epochs=(8, 150),
    weight_decay=2e-3,
    shift=1,
    is_mirrored=False,
    guidance=0.3,
)
