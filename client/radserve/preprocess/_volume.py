"""A stack of slices to the wire as one volume."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from radserve.contracts import FileWindow, FixedWindow
from radserve.errors import InconsistentSeriesError, OutOfScopeError
from radserve.preprocess._display import Display
from radserve.preprocess._geometry import Placement, placement_of, span
from radserve.preprocess._image import cropped, to_wire, valid_values, window_of
from radserve.preprocess._resize import made_to_wire_grid, taps
from radserve.preprocess._window import percentile_window
from radserve.sources import VoiLut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    from radserve.contracts import ImageInput, WholeVolume
    from radserve.sources import Image, VoiWindow

    Images: TypeAlias = Callable[[], Iterator[Image]]

MAX_VOXELS = 2**27
_LEAST_SHARE = 4
_LARGEST_SCALE = 64.0


def volume_placement(
    size: tuple[int, int, int], spacing_mm: tuple[float, float, float] | None, described: ImageInput
) -> Placement:
    """Where a stack of slices comes to lie on a model's wire.

    Args:
        size: Slices, rows and columns of the stack.
        spacing_mm: Between slices, rows and columns; None where nobody knows.
        described: The contract's input block, whose study is a WholeVolume.

    Raises:
        OutOfScopeError: It has fewer than a quarter of the model's slices, rows or
            columns, or its spacing is unknown or too unlike the model's.
    """
    study = cast("WholeVolume", described.study)
    pixel_aspect = spacing_mm[1] / spacing_mm[2] if spacing_mm else None
    placement = placement_of((size[1], size[2]), described, pixel_aspect)
    if study.spacing_mm is None:
        slices = span(size[0], 0, size[0], study.slices, study.slices)
        placement = replace(placement, slices=slices)
        enough = all(_LEAST_SHARE * axis.used >= axis.wire for axis in placement.spans)
    else:
        if spacing_mm is None:
            msg = "the model wants slices of a known spacing: give DICOM files instead of an array"
            raise OutOfScopeError(msg)
        scales = [have / want for have, want in zip(spacing_mm, study.spacing_mm, strict=True)]
        if not 1 / _LARGEST_SCALE <= min(scales) <= max(scales) <= _LARGEST_SCALE:
            msg = f"the spacing is more than {_LARGEST_SCALE:g} times the model's, or less than that part of it"
            raise OutOfScopeError(msg)
        whole = replace(placement, slices=span(size[0], 0, size[0], study.slices, study.slices))
        placement = Placement(
            **{
                name: span(axis.source, axis.start, axis.used, axis.wire, max(1, int(axis.used * scale + 0.5)))
                for name, axis, scale in zip(("slices", "rows", "columns"), whole.spans, scales, strict=True)
            }
        )
        enough = all(_LEAST_SHARE * axis.length >= axis.wire for axis in placement.spans)
    if not enough:
        msg = (
            "the volume is too small: less than a quarter of the model's"
            f" {study.slices} x {described.rows} x {described.columns} slices, rows or columns would be filled"
        )
        raise OutOfScopeError(msg)
    return placement


def volume_to_wire(images: Images, placement: Placement, described: ImageInput) -> NDArray[Any]:
    """Make what a model's PIXELS tensor takes of a volume, without the batch axis.

    As ``image_to_wire``, with one window for all slices: percentiles are those of
    the whole volume. Slices are held one at a time.

    Args:
        images: Gives the slices in their order, each time it is called.
        placement: Where they come to lie.
        described: The contract's input block, whose study is a WholeVolume.

    Returns:
        ``(slices, rows, columns, channels)``, uint8 or uint16.

    Raises:
        InconsistentSeriesError: The files carry different windows, and the model uses them.
        OutOfScopeError: As ``image_to_wire``.
        DecodeError: As ``image_to_wire``.
    """
    fixed = _window_of_values(images, placement, described)
    along = cast("Any", placement.slices)
    first, last = max(0, -along.offset), min(along.length, along.wire - along.offset)
    places, weights = taps(along.used, along.length, first, last)
    total: NDArray[np.float32] | None = None
    window: VoiWindow | VoiLut | None = fixed
    are_blank = True
    for number, image in enumerate(images()):
        part = cropped(image, described)
        if fixed is None and part.photometric_interpretation != "RGB":
            own = window_of(part, described)
            if number and not _same(own, window):
                msg = "the slices carry different windows: have the model exported with a window of its own"
                raise InconsistentSeriesError(msg)
            window = own
        display = Display(part, window, described)
        plane = made_to_wire_grid(display.make, display.shape, placement.kept)
        are_blank = are_blank and display.is_blank
        if total is None:
            total = np.zeros((along.wire, *plane.shape), np.float32)
        for tap, row in np.argwhere((places == number) & (weights > 0)):
            total[along.offset + first + row] += weights[tap, row] * plane
    if total is None or are_blank:
        msg = "the volume has no contrast: after windowing all pixels of each slice are the same"
        raise OutOfScopeError(msg)
    return to_wire(total, described)


def _window_of_values(images: Images, placement: Placement, described: ImageInput) -> VoiWindow | None:
    """The window between percentiles of the volume; None where each slice says its own, or has none."""
    window = described.window
    if isinstance(window, FixedWindow):
        return None
    one = next(images())
    if one.photometric_interpretation == "RGB":
        return None
    percentiles = None if isinstance(window, FileWindow) else (window.lower, window.upper)
    if isinstance(window, FileWindow) and not one.windows:
        percentiles = window.fallback_percentiles
    if percentiles is None:
        return None
    count = int(np.prod([axis.used for axis in placement.spans]))
    if count > MAX_VOXELS:
        msg = f"the volume has more than {MAX_VOXELS >> 20} million pixels, the most whose percentiles this SDK takes"
        raise OutOfScopeError(msg)
    found = percentile_window(
        np.concatenate([valid_values(cropped(image, described)).reshape(-1) for image in images()]), percentiles
    )
    if found is None:
        msg = "the volume has no contrast: both percentiles of its values coincide"
        raise OutOfScopeError(msg)
    return found


def _same(one: VoiWindow | VoiLut | None, other: VoiWindow | VoiLut | None) -> bool:
    if isinstance(one, VoiLut) and isinstance(other, VoiLut):
        return (one.first, one.bits) == (other.first, other.bits) and np.array_equal(one.table, other.table)
    return type(one) is type(other) and one == other
