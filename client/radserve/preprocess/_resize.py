"""Bilinear resize with anti-aliasing, as ``tf.image.resize(antialias=True)`` defines it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import Aspect
from radserve.preprocess._geometry import place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve.preprocess._geometry import Placement, Span

# With more samples than these behind a row of the result, rows are made one by one, else all of them tap by tap.
_LARGE_SAMPLES = 2**14


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
    return to_wire_grid(image, place((image.shape[0], image.shape[1]), (rows, columns), aspect))


def to_wire_grid(image: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Bring the part of a frame that a model looks at to the wire's grid; see ``resize``.

    Args:
        image: The frame, ``(rows, columns)`` or ``(rows, columns, channels)``, float32.
        placement: Where its pixels come to lie.

    Returns:
        ``(rows, columns[, channels])`` of the wire, float32.
    """
    down, right = placement.rows, placement.columns
    part = image[down.start : down.start + down.used, right.start : right.start + right.used]
    # What lies between the two passes is never larger than both the image and the result.
    if down.wire > down.used and right.wire < right.used:
        return np.ascontiguousarray(_along_rows(_along_columns(part, right), down))
    return np.ascontiguousarray(_along_columns(_along_rows(part, down), right))


def _along_columns(image: NDArray[np.float32], span: Span) -> NDArray[np.float32]:
    return _along_rows(image.swapaxes(0, 1), span).swapaxes(0, 1)


def _along_rows(image: NDArray[np.float32], span: Span) -> NDArray[np.float32]:
    """Resample axis 0 to the wire's: the taps of each row are added one after the other, in float32."""
    if span.used == span.length == span.wire:
        return image
    image = np.ascontiguousarray(image)  # of columns, a copy that is small against what it saves
    # Of what is stretched, only the part that lies on the wire is computed.
    first, last = max(0, -span.offset), min(span.length, span.wire - span.offset)
    total = np.zeros((span.wire, *image.shape[1:]), dtype=np.float32)
    visible = total[span.offset + first : span.offset + last]
    places, weights = taps(span.used, span.length, first, last)
    trailing = (1,) * (image.ndim - 1)
    if len(places) > len(visible) or len(places) * image[0].size > _LARGE_SAMPLES:
        for row, (begin, weight) in enumerate(zip(places[0], weights.T, strict=True)):
            seen = image[begin : begin + len(weight)]  # what lies beyond its end has no weight
            np.add.reduce(seen * weight[: len(seen)].reshape(-1, *trailing), axis=0, out=visible[row])
        return total
    for taken, weight in zip(places, weights, strict=True):
        weighted = image.take(taken, axis=0)
        weighted *= weight.reshape(-1, *trailing)
        visible += weighted
    return total


@lru_cache(maxsize=64)
def taps(source: int, target: int, first: int, last: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """For every tap, which source row it reads for the target rows ``first`` to ``last - 1``, and its weight.

    Returns:
        Places and weights, both ``(taps, last - first)``; weights of a target row sum to 1.
    """
    scale = source / target
    radius = max(scale, 1.0)
    centers = (np.arange(first, last) + 0.5) * scale
    lowest = np.maximum(0, np.ceil(centers - radius - 0.5)).astype(np.intp)
    highest = np.minimum(source - 1, np.floor(centers + radius - 0.5)).astype(np.intp)
    places = lowest + np.arange(int((highest - lowest).max()) + 1)[:, np.newaxis]
    weights = np.maximum(0, 1 - np.abs((places + 0.5 - centers) / radius))
    weights[places > highest] = 0
    weights /= weights.sum(axis=0)
    return np.minimum(places, source - 1), weights.astype(np.float32)
