"""One frame of an image, decoded and brought to modality values (PS3.3 C.7.6.3, C.11.1, C.11.2)."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
from pydicom.pixels.processing import convert_color_space

from radserve.dicom._attributes import functional_group, get, numbers, pairs, positive, text
from radserve.dicom._decode import decode_frame
from radserve.dicom._geometry import image_plane, pixel_aspect
from radserve.dicom._tables import lookup_table, palette
from radserve.errors import DecodeError, InputError, MissingAttributeError, OutOfScopeError
from radserve.sources import Image, Rescale, Scope, VoiLut, VoiWindow, row_blocks, to_modality_values

if TYPE_CHECKING:
    from typing import SupportsIndex

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from radserve.dicom._budget import Budget
    from radserve.dicom._codecs import Frame, Stored
    from radserve.sources import Geometry

_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_YBR = ("YBR_FULL", "YBR_FULL_422")
_8_BITS = 8
_8_BIT_MAX = 255
_IDENTITY = Rescale(slope=1.0, intercept=0.0)
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class _Place(TypedDict):
    """What an image of either kind says about where it comes from."""

    pixel_spacing_mm: tuple[float, float] | None
    pixel_aspect: float | None
    geometry: Geometry | None
    frame_number: int | None


def decode_image(dataset: Dataset, scope: Scope, frame: SupportsIndex | None, budget: Budget) -> Image:
    """Decode one frame; see ``radserve.dicom.read_image``."""
    index = _frame_index(dataset, frame)
    decoded = decode_frame(dataset, index, budget)
    stored, photometric = decoded.stored, decoded.photometric_interpretation
    place: _Place = {
        "pixel_spacing_mm": _pixel_spacing(dataset, index),
        "pixel_aspect": pixel_aspect(dataset, index),
        "geometry": image_plane(dataset, index),
        "frame_number": index + 1 if positive(dataset, "NumberOfFrames", default=1) > 1 else None,
    }
    if photometric not in _MONOCHROME:
        rgb = _to_rgb(dataset, decoded)
        return Image(pixels=rgb, photometric_interpretation="RGB", scope=scope, **place)
    if stored.ndim != 2:  # noqa: PLR2004 - rows and columns
        msg = "SamplesPerPixel is not 1, as the monochrome PhotometricInterpretation needs (PS3.3 C.7.6.3.1.2)"
        raise DecodeError(msg)
    pixels, modality = _modality(dataset, stored, index)
    return Image(
        pixels=pixels,
        photometric_interpretation=photometric,
        modality=modality,
        windows=_voi(dataset, index),
        rescale_type=_rescale_type(dataset, index),
        valid=_valid(dataset, stored),
        scope=scope,
        **place,
    )


def _frame_index(dataset: Dataset, frame: SupportsIndex | None) -> int:
    count = positive(dataset, "NumberOfFrames", default=1)
    if frame is None:
        if count > 1:
            msg = f"the file holds {count} frames: choose one with frame=, counted from 0"
            raise OutOfScopeError(msg)
        return 0
    try:
        index = -1 if isinstance(frame, bool | np.bool_) else operator.index(frame)
    except TypeError:
        index = -1
    if not 0 <= index < count:
        msg = f"there is no such frame: the file holds {count}, counted from 0"
        raise InputError(msg)
    return index


def _to_rgb(dataset: Dataset, frame: Frame) -> NDArray[np.uint8]:
    stored, photometric, bits_stored = frame.stored, frame.photometric_interpretation, frame.bits_stored
    if photometric == "PALETTE COLOR" and stored.ndim == 2:  # noqa: PLR2004 - rows and columns
        return _coloured(dataset, stored)
    if photometric not in ("RGB", *_YBR) or stored.ndim != 3 or stored.shape[2] != 3:  # noqa: PLR2004 - axes, samples
        msg = "the PhotometricInterpretation is none that this SDK converts to RGB"
        raise DecodeError(msg)
    if photometric in _YBR and bits_stored != _8_BITS:
        msg = "BitsStored is not 8, as YBR_FULL and YBR_FULL_422 need (PS3.3 C.7.6.3.1.2)"
        raise DecodeError(msg)
    if photometric == "RGB" and stored.dtype == np.uint8 and bits_stored == _8_BITS:
        return cast("NDArray[np.uint8]", stored if stored.flags.writeable else stored.copy())
    rgb = np.empty(stored.shape, np.uint8)
    for rows in row_blocks(stored.shape):
        if photometric in _YBR:
            rgb[rows] = convert_color_space(stored[rows], photometric, "RGB")
        else:
            scaled = stored[rows].astype(np.float32) * (_8_BIT_MAX / (2**bits_stored - 1))
            rgb[rows] = np.rint(scaled).clip(0, _8_BIT_MAX)
    return rgb


def _coloured(dataset: Dataset, stored: Stored) -> NDArray[np.uint8]:
    tables = palette(dataset, signed=_is_signed(dataset))
    rgb = np.empty((*stored.shape, 3), np.uint8)
    for rows in row_blocks(stored.shape):
        for channel, table in enumerate(tables):
            rgb[rows, :, channel] = table.of(stored[rows])
    return rgb


def _modality(dataset: Dataset, stored: Stored, index: int) -> tuple[NDArray[Any], Rescale | VoiLut | None]:
    """Pixels and what makes modality values of them: a table, or slope and intercept (PS3.3 C.11.1).

    Nothing does where they may be lost in float32, or not finite: of these, the
    pixels are the modality values.
    """
    tables = get(dataset, "ModalityLUTSequence")
    if tables:
        if stored.dtype.kind == "f":
            msg = "ModalityLUTSequence maps integers (PS3.3 C.11.1.1), and the pixels are floating-point numbers"
            raise DecodeError(msg)
        return stored, lookup_table(tables[0], dataset, signed=_is_signed(dataset))
    rescale = _rescale(dataset, index)
    if rescale is None and text(dataset, "Modality") == "CT":
        keyword = "RescaleSlope"
        raise MissingAttributeError(keyword, "without it and RescaleIntercept the values have no scale (HU)")
    rescale = rescale or _IDENTITY
    bound = abs(rescale.slope) * 2.0 ** (8 * stored.dtype.itemsize) + abs(rescale.intercept)
    is_finite = stored.dtype.kind != "f" and bound < _FLOAT32_MAX / 2
    # float32 holds 16-bit stored values exactly, wider ones need float64 on the way.
    is_exact = stored.dtype.itemsize <= 2  # noqa: PLR2004 - bytes
    if is_exact and is_finite:
        return stored, None if rescale == _IDENTITY else rescale
    modality = np.empty(stored.shape, np.float32)
    for rows in row_blocks(stored.shape):
        values: NDArray[np.floating[Any]] = modality[rows] if is_exact else np.empty(stored[rows].shape)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused just below
            to_modality_values(stored[rows], rescale, values)
            if not is_exact:
                modality[rows] = values
        if not is_finite and not np.isfinite(modality[rows]).all():
            msg = "the image holds values that are not finite numbers"
            raise DecodeError(msg)
    return modality, None


def _rescale(dataset: Dataset, index: int) -> Rescale | None:
    """Rescale Slope and Intercept; None where the file has neither.

    Raises:
        MissingAttributeError: It has one without the other.
        DecodeError: The slope is 0.
    """
    item = functional_group(dataset, index, "PixelValueTransformationSequence")
    slope, intercept = numbers(item, "RescaleSlope"), numbers(item, "RescaleIntercept")
    if not slope and not intercept:
        return None
    if not slope or not intercept:
        keyword = "RescaleIntercept" if slope else "RescaleSlope"
        raise MissingAttributeError(keyword, "slope and intercept come together (PS3.3 C.11.1)")
    if slope[0] == 0:
        msg = "RescaleSlope is 0: all values would be the same"
        raise DecodeError(msg)
    return Rescale(slope=slope[0], intercept=intercept[0])


def _rescale_type(dataset: Dataset, index: int) -> str | None:
    tables = get(dataset, "ModalityLUTSequence")
    if tables:
        return text(tables[0], "ModalityLUTType")
    return text(functional_group(dataset, index, "PixelValueTransformationSequence"), "RescaleType")


def _is_signed(dataset: Dataset) -> bool:
    return numbers(dataset, "PixelRepresentation")[:1] == (1.0,)


def _modality_is_signed(dataset: Dataset, index: int) -> bool:
    """Whether modality values can be negative (PS3.3 C.11.2.1.1)."""
    if get(dataset, "ModalityLUTSequence"):
        return False
    signed = _is_signed(dataset)
    rescale = _rescale(dataset, index)
    if rescale is None:
        return signed
    span = 2.0 ** min(64, positive(dataset, "BitsStored", default=16))
    lowest = -span / 2 if signed else 0.0
    return min(lowest * rescale.slope, (lowest + span - 1) * rescale.slope) + rescale.intercept < 0


def _voi(dataset: Dataset, index: int) -> tuple[VoiWindow | VoiLut, ...]:
    """VOI LUTs, then windows, as the file orders them (PS3.3 C.11.2)."""
    tables = get(dataset, "VOILUTSequence") or ()
    signed = bool(tables) and _modality_is_signed(dataset, index)
    luts = [lookup_table(table, dataset, signed=signed) for table in tables]
    item = functional_group(dataset, index, "FrameVOILUTSequence")
    function = text(item, "VOILUTFunction") or "LINEAR"
    windows = [
        VoiWindow(center=center, width=width, function=function)
        for center, width in pairs(item, "WindowCenter", "WindowWidth")
    ]
    return (*luts, *windows)


def _valid(dataset: Dataset, stored: Stored) -> NDArray[np.bool_] | None:
    """Where no Pixel Padding Value stands (PS3.3 C.7.5.1.1.2); compared with stored values."""
    kind = {"f4": "Float", "f8": "DoubleFloat"}.get(stored.dtype.str[1:], "")
    padding = numbers(dataset, f"{kind}PixelPaddingValue")
    if not padding:
        return None
    limit = numbers(dataset, f"{kind}PixelPaddingRangeLimit") or padding
    low, high = sorted((_as_stored(padding[0], stored.dtype), _as_stored(limit[0], stored.dtype)))
    valid = np.empty(stored.shape, np.bool_)
    for rows in row_blocks(stored.shape):
        np.logical_or(stored[rows] < low, stored[rows] > high, out=valid[rows])
    return None if bool(valid.all()) else valid


def _as_stored(value: float, dtype: np.dtype[Any]) -> float:
    """Undo the wrong sign of a value that was written as US, of 16 bits or those of a pixel, where SS was due."""
    if dtype.kind == "i":
        for bits in (16, 8 * dtype.itemsize):
            value -= 2.0**bits if 2 ** (bits - 1) <= value < 2**bits else 0
    return int(value) if value.is_integer() else value  # NumPy compares integers with an integer ten times as fast


def _pixel_spacing(dataset: Dataset, index: int) -> tuple[float, float] | None:
    """Pixel Spacing (PS3.3 10.7.1.1); Imager Pixel Spacing is the detector's, larger than in the patient."""
    spacing = numbers(functional_group(dataset, index, "PixelMeasuresSequence"), "PixelSpacing")
    return (spacing[0], spacing[1]) if len(spacing) == 2 and min(spacing) > 0 else None  # noqa: PLR2004 - rows and columns
