"""Bilinear resize with anti-aliasing, as ``tf.image.resize(antialias=True)`` defines it."""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import Aspect
from radserve.preprocess._geometry import place
from radserve.sources import row_blocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from numpy.typing import NDArray

    from radserve.preprocess._geometry import Placement, Span

    Make: TypeAlias = Callable[[slice, NDArray[np.float32]], None]

# With more samples than these behind a row of the result, rows are made one by one, else all of them tap by tap.
_LARGE_SAMPLES = 2**14
_LARGE_FRAME_SAMPLES = 2**21  # memory for the display values of as many takes longer to get than rows one by one
_ONCE = np.ones(1, np.float32)


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
    if _is_wide(placement):
        return np.ascontiguousarray(_along_rows(_along_columns(part, right), down))
    return np.ascontiguousarray(_along_columns(_along_rows(part, down), right))


def made_to_wire_grid(make: Make, shape: tuple[int, ...], placement: Placement) -> NDArray[np.float32]:
    """As ``to_wire_grid``, of a frame whose rows are made a few at a time, from the first to the last one.

    Args:
        make: Writes rows of the frame to an array; a large frame's are not kept.
        shape: ``(rows, columns)`` or ``(rows, columns, channels)`` of the frame.
        placement: Where its pixels come to lie; all of them are used.
    """
    down = placement.rows
    if down.length < down.used and math.prod(shape) >= _LARGE_FRAME_SAMPLES and not _is_wide(placement):
        return np.ascontiguousarray(_along_columns(_row_by_row(make, shape, down), placement.columns))
    whole = np.empty(shape, np.float32)
    for rows in row_blocks(shape):
        make(rows, whole[rows])
    return to_wire_grid(whole, placement)


def _is_wide(placement: Placement) -> bool:
    """Whether columns come first: what lies between the two passes is never larger than both image and result."""
    down, right = placement.rows, placement.columns
    return down.wire > down.used and right.wire < right.used


def _along_columns(image: NDArray[np.float32], span: Span) -> NDArray[np.float32]:
    return _along_rows(image.swapaxes(0, 1), span).swapaxes(0, 1)


def _along_rows(image: NDArray[np.float32], span: Span) -> NDArray[np.float32]:
    """Resample axis 0 to the wire's: the taps of each row are added one after the other, in float32."""
    if span.used == span.length == span.wire:
        return image
    image = np.ascontiguousarray(image)  # of columns, a copy that is small against what it saves
    first, last = _on_wire(span)
    places, weights = taps(span.used, span.length, first, last)
    if len(places) > last - first or len(places) * image[0].size > _LARGE_SAMPLES:
        return _row_by_row(lambda rows, to: np.copyto(to, image[rows]), image.shape, span)
    total = np.zeros((span.wire, *image.shape[1:]), dtype=np.float32)
    visible = total[span.offset + first : span.offset + last]
    weighted = np.empty_like(visible)
    for taken, weight in zip(places, weights, strict=True):
        image.take(taken, axis=0, out=weighted, mode="clip")
        weighted *= weight.reshape(-1, *(1,) * (image.ndim - 1))
        visible += weighted
    return total


def _row_by_row(make: Make, shape: tuple[int, ...], span: Span) -> NDArray[np.float32]:
    """As ``_along_rows``; see ``made_to_wire_grid``."""
    first, last = _on_wire(span)
    total = np.zeros((span.wire, *shape[1:]), dtype=np.float32)
    visible = total[span.offset + first : span.offset + last].reshape(last - first, -1)
    places, weights = taps(span.used, span.length, first, last)
    begins = places[0].tolist()
    ends = [min(begin + len(places), span.used) for begin in begins]
    blocks = list(row_blocks(shape))
    terms = np.empty((1 + blocks[0].stop, visible.shape[1]), dtype=np.float32)
    made = terms[1:].reshape(-1, *shape[1:])
    row = 0
    for block in blocks:
        make(block, made[: block.stop - block.start])
        while row < len(ends) and ends[row] <= block.start:
            row += 1
        for index in range(row, bisect_left(begins, block.stop)):
            low, high = max(begins[index], block.start), min(ends[index], block.stop)
            weight, first_term = weights[low - begins[index] : high - begins[index], index], low - block.start + 1
            if begins[index] < block.start:
                # The sum so far comes first: added in the same order, it is that of all rows at once.
                terms[0], weight, first_term = visible[index], np.concatenate((_ONCE, weight)), 0
            np.einsum("k,kc->c", weight, terms[first_term : high - block.start + 1], out=visible[index])
    return total


def _on_wire(span: Span) -> tuple[int, int]:
    """The first, and the one after the last, of the rows stretched to that lie on the wire: no others are computed."""
    return max(0, -span.offset), min(span.length, span.wire - span.offset)


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
