"""Training of ``ct_hemorrhage``, ``brain_mri`` and ``breast_ultrasound``: convolutions, then the mean of each map.

The mean keeps no place, so the network finds a lesion wherever it is, and its
last maps show where that was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.training._images import Recipe, train_classifier

if TYPE_CHECKING:
    from radserve_export.from_keras.training import Dataset, Progress
    from radserve_export.spec import Spec

# Each but the last halves the map: of 64 x 64 pixels, 8 x 8 are left.
_FILTERS = (16, 32, 48, 64)


def train(spec: Spec, data: Dataset | None, progress: Progress) -> keras.Model:
    """Train the network; see ``train_classifier``."""
    return train_classifier(spec, data, progress, _RECIPE)


def build_network(image: tuple[int, int, int], labels: int, name: str) -> keras.Model:
    """Build the untrained network.

    Args:
        image: Rows, columns and channels.
        labels: Number of classes.
        name: The network's name.
    """
    layers = keras.layers
    x = taken = keras.Input(image, name="image")
    for number, filters in enumerate(_FILTERS, start=1):
        if number > 1:
            x = layers.MaxPooling2D(2, name=f"pool_{number - 1}")(x)
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv_{number}")(x)
        x = layers.BatchNormalization(name=f"norm_{number}")(x)
        x = layers.ReLU(name=f"relu_{number}")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    given = layers.Dense(labels, activation="softmax", name="probabilities")(x)
    return keras.Model(taken, given, name=name)


_RECIPE = Recipe(build=build_network, images_seen=80_000, epochs=(8, 60), weight_decay=2e-3, shift=3, is_mirrored=True)
