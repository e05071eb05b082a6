"""What phantoms are drawn with: soft edges, smooth noise, random choices."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from radserve_export.synthetic import Sample, Split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Plane = NDArray[np.float32]

Choice = TypeVar("Choice")

# The first word of a random stream's seed: no TRAIN stream is ever a TEST stream.
STREAM = {Split.TRAIN: 0x7261, Split.TEST: 0x7465}


class _Make(Protocol):
    def __call__(self, index: int, *, seed: int, split: Split) -> Sample: ...


class _Generate(Protocol):
    def __call__(self, count: int, *, seed: int, split: Split) -> Iterator[Sample]: ...


def in_turn(make_sample: _Make) -> _Generate:
    """The ``generate`` of phantoms that are made each by itself: the first n do not depend on how many follow.

    TRAIN and TEST never share a random stream; the kind of phantom is the same.
    """

    def generate(count: int, *, seed: int, split: Split) -> Iterator[Sample]:
        for index in range(count):
            yield make_sample(index, seed=seed, split=split)

    return generate


def either(rng: np.random.Generator, one: Choice, other: Choice) -> Choice:
    """One of two, each half of the times."""
    return (one, other)[int(rng.integers(2))]


def step(edge: Plane, softness: float) -> Plane:
    """0 below ``-softness``, 1 above ``softness``, smooth between."""
    t = edge * np.float32(0.5 / softness)
    t += np.float32(0.5)
    np.clip(t, 0, 1, out=t)
    smooth: Plane = 3 - 2 * t
    smooth *= t
    smooth *= t
    return smooth


def cloud(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Plane:
    """Smooth noise of unit variance with about ``cells`` bumps along each axis."""
    knots = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    return _stretch(_stretch(knots, shape[0]).T, shape[1]).T


def _stretch(knots: Plane, size: int) -> Plane:
    """Interpolate the first axis to ``size`` points; without BLAS, whose threads would fight over small matrices."""
    first, (a, b, c) = _spline(size, len(knots) - 3)
    stretched: Plane = a * knots[first] + b * knots[first + 1] + c * knots[first + 2]
    return stretched


@lru_cache(maxsize=512)
def _spline(size: int, cells: int) -> tuple[NDArray[np.int64], tuple[Plane, Plane, Plane]]:
    """First of the three knots that each of ``size`` points lies between, and the knots' weights ``(size, 1)``."""
    place = np.linspace(0.5, cells + 0.5, size)
    first = np.floor(place).astype(np.int64)
    t = (place - first)[:, None]
    weights = np.stack([(1 - t) ** 2 / 2, 0.5 + t - t**2, t**2 / 2])  # the quadratic B-spline
    a, b, c = (weights / np.sqrt((weights**2).sum(axis=0))).astype(np.float32)
    return first, (a, b, c)


def label_map(lesion: NDArray[np.bool_] | None, label: int) -> NDArray[np.uint8] | None:
    """What ``Sample.truth`` holds: the place of the one lesion of an image, if it has a place.

    Args:
        lesion: Where it lies, on the image's own grid; None for no place.
        label: Its label's place in the generator's ``LABELS``, from 0.
    """
    return None if lesion is None else lesion.astype(np.uint8) * np.uint8(label + 1)
