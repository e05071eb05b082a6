"""Bilinear resize with anti-aliasing, as ``tf.image.resize(antialias=True)`` defines it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import Aspect

if TYPE_CHECKING:
    from numpy.typing import NDArray


def resize(image: NDArray[np.float32], rows: int, columns: int, aspect: Aspect = Aspect.STRETCH) -> NDArray[np.float32]:
    """Bring an image to a size.

    A triangle kernel, widened by the scale when shrinking, with half-pixel
    centres and weights renormalised at the edges.

    Args:
        image: ``(rows, columns)`` or ``(rows, columns, channels)``, float32.
        rows: Height to reach.
        columns: Width to reach.
        aspect: STRETCH ignores the aspect ratio; PAD keeps it and fills with
            0, evenly on both sides; CROP keeps it and cuts evenly on both sides.

    Returns:
        ``(rows, columns[, channels])``, float32, within the range of the input and 0.
    """
    if aspect is Aspect.STRETCH:
        return _stretch(image, rows, columns)
    ratios = rows / image.shape[0], columns / image.shape[1]
    scale = min(ratios) if aspect is Aspect.PAD else max(ratios)
    height, width = (max(1, int(length * scale + 0.5)) for length in image.shape[:2])
    scaled = _stretch(image, height, width)
    if aspect is Aspect.CROP:
        top, left = max(0, (height - rows) // 2), max(0, (width - columns) // 2)
        return scaled[top : top + rows, left : left + columns]
    padded = np.zeros((rows, columns, *image.shape[2:]), dtype=np.float32)
    top, left = (rows - height) // 2, (columns - width) // 2
    padded[top : top + height, left : left + width] = scaled
    return padded


def _stretch(image: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    halfway = _along_rows(image, rows)
    return np.ascontiguousarray(_along_rows(halfway.swapaxes(0, 1), columns).swapaxes(0, 1))


def _along_rows(image: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Resample axis 0, one kernel tap at a time: few passes over whole rows."""
    if image.shape[0] == length:
        return image
    places, weights = _taps(image.shape[0], length)
    trailing = (1,) * (image.ndim - 1)
    total = np.zeros((length, *image.shape[1:]), dtype=np.float32)
    for place, weight in zip(places, weights, strict=True):
        total += image[place] * weight.reshape(-1, *trailing)
    return total


@lru_cache(maxsize=64)
def _taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """For every tap, which source row it reads for each target row, and its weight.

    Returns:
        Places and weights, both ``(taps, target)``; weights of a target row sum to 1.
    """
    scale = source / target
    radius = max(scale, 1.0)
    centers = (np.arange(target) + 0.5) * scale
    first = np.maximum(0, np.ceil(centers - radius - 0.5)).astype(np.intp)
    last = np.minimum(source - 1, np.floor(centers + radius - 0.5)).astype(np.intp)
    places = first + np.arange(int((last - first).max()) + 1)[:, np.newaxis]
    weights = np.maximum(0, 1 - np.abs((places + 0.5 - centers) / radius))
    weights[places > last] = 0
    weights /= weights.sum(axis=0)
    return np.minimum(places, source - 1), weights.astype(np.float32)
