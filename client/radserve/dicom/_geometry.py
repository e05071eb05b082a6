"""Where the pixels of a frame lie in the patient, and what shape they have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np

from radserve.dicom._attributes import functional_group, get, numbers, positive, text
from radserve.errors import DecodeError
from radserve.sources import Geometry

if TYPE_CHECKING:
    from typing import TypeAlias

    from pydicom.dataset import Dataset

    Vector: TypeAlias = tuple[float, float, float]

# Image Orientation (Patient) is text of at most 16 characters: real files round it to four or more digits.
_COSINE_TOLERANCE = 1e-3
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
_LARGEST_MM = 1e6
_CENTIMETRES = 3  # of Physical Units X and Y Direction


def image_plane(dataset: Dataset, index: int) -> Geometry | None:
    """Image Plane module (PS3.3 C.7.6.2), or the macros that stand for it in multi-frame files (C.7.6.16.2).

    Args:
        dataset: The whole data set.
        index: Which frame, counted from 0.

    Returns:
        None where an attribute is absent or breaks the standard.
    """
    try:
        place = functional_group(dataset, index, "PlanePositionSequence")
        if place is dataset and positive(dataset, "NumberOfFrames", default=1) > 1:
            return None  # what stands outside the groups is at best the first frame's
        position = numbers(place, "ImagePositionPatient")
        cosines = numbers(functional_group(dataset, index, "PlaneOrientationSequence"), "ImageOrientationPatient")
        spacing = numbers(functional_group(dataset, index, "PixelMeasuresSequence"), "PixelSpacing")
    except DecodeError:
        return None
    if (len(position), len(cosines), len(spacing)) != (3, 6, 2) or not _is_plane(position, cosines, spacing):
        return None
    uid = text(dataset, "FrameOfReferenceUID")
    return Geometry(
        position_mm=cast("Vector", position),
        row_cosines=cast("Vector", cosines[:3]),
        column_cosines=cast("Vector", cosines[3:]),
        pixel_spacing_mm=cast("tuple[float, float]", spacing),
        frame_of_reference_uid=uid,
    )


def _is_plane(position: tuple[float, ...], cosines: tuple[float, ...], spacing: tuple[float, ...]) -> bool:
    row, column = np.array(cosines).reshape(2, 3)
    lengths = np.array([row @ row, column @ column, 1 + row @ column])
    return (
        bool((np.abs(lengths - 1) <= 2 * _COSINE_TOLERANCE).all())
        and min(spacing) > 0
        and max(*spacing, *map(abs, position)) < _LARGEST_MM
    )


def pixel_aspect(dataset: Dataset, index: int) -> float | None:
    """Height of a pixel through its width.

    By Pixel Spacing, Imager Pixel Spacing, Nominal Scanned Pixel Spacing, Pixel
    Aspect Ratio (PS3.3 C.7.6.3.1.7), or the scale of all ultrasound regions of tissue
    (C.8.5.5.1), whichever the file has first.

    Returns:
        None where the file does not say it; NaN where what it says breaks the standard.
    """
    try:
        for keyword in _SPACINGS:
            item = functional_group(dataset, index, "PixelMeasuresSequence") if keyword == _SPACINGS[0] else dataset
            if found := numbers(item, keyword):
                return _ratio(found)
        ratios = {
            _ratio((*numbers(it, "PhysicalDeltaY"), *numbers(it, "PhysicalDeltaX")))
            for it in get(dataset, "SequenceOfUltrasoundRegions") or ()
            # Those of Doppler or M-mode have time or frequency on an axis: their pixels have no shape.
            if all(numbers(it, f"PhysicalUnits{axis}Direction") == (_CENTIMETRES,) for axis in "XY")
        }
    except DecodeError:
        return math.nan
    return ratios.pop() if len(ratios) == 1 else None


def _ratio(height_width: tuple[float, ...]) -> float:
    if len(height_width) != 2 or 0 in height_width:  # noqa: PLR2004 - height and width
        return math.nan
    return abs(height_width[0] / height_width[1])
