"""One frame of an image, decoded and brought to modality values (PS3.3 C.7.6.3, C.11.1, C.11.2)."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import UID, JPEGExtended12Bit

from radserve.dicom._attributes import functional_group, lookup_table, numbers, pairs, positive, text
from radserve.dicom._geometry import image_plane, pixel_aspect
from radserve.errors import (
    DecodeError,
    InputError,
    MissingAttributeError,
    OutOfScopeError,
    UnsupportedTransferSyntaxError,
)
from radserve.sources import Image, Scope, VoiLut, VoiWindow

if TYPE_CHECKING:
    from typing import SupportsIndex, TypeAlias

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset
    from pydicom.pixels.decoders.base import Decoder

    from radserve.sources import Geometry

    Stored: TypeAlias = NDArray[np.integer[Any] | np.floating[Any]]

MAX_FRAME_PIXELS = 2**26
_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_DAMAGED = "the pixel data are truncated or damaged: fetch the file again"
_8_BIT_MAX = 255


class _Place(TypedDict):
    """What an image of either kind says about where it comes from."""

    pixel_spacing_mm: tuple[float, float] | None
    pixel_aspect: float | None
    geometry: Geometry | None
    frame_number: int | None


def decode_image(dataset: Dataset, scope: Scope, frame: SupportsIndex | None) -> Image:
    """Decode one frame; see ``radserve.dicom.read_image``."""
    keyword = next((name for name in _PIXEL_KEYWORDS if name in dataset), None)
    if keyword is None:
        raise MissingAttributeError(_PIXEL_KEYWORDS[0], "the file holds no image")
    index = _frame_index(dataset, frame)
    decoder = _decoder(dataset)
    _check_size(dataset, keyword, native=decoder.is_native)
    stored, photometric, bits_stored = _decode(decoder, dataset, index)
    place: _Place = {
        "pixel_spacing_mm": _pixel_spacing(dataset, index),
        "pixel_aspect": pixel_aspect(dataset, index),
        "geometry": image_plane(dataset, index),
        "frame_number": index + 1 if positive(dataset, "NumberOfFrames", default=1) > 1 else None,
    }
    if photometric not in _MONOCHROME:
        rgb = _to_rgb(dataset, stored, photometric, bits_stored)
        return Image(values=rgb, photometric_interpretation="RGB", scope=scope, **place)
    if stored.ndim != 2:  # noqa: PLR2004 - rows and columns
        msg = "SamplesPerPixel is not 1, as the monochrome PhotometricInterpretation needs (PS3.3 C.7.6.3.1.2)"
        raise DecodeError(msg)
    return Image(
        values=_modality_values(dataset, stored, index),
        photometric_interpretation=photometric,
        windows=_voi(dataset, index),
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


def _decoder(dataset: Dataset) -> Decoder:
    meta = getattr(dataset, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta is not None else None
    if not syntax:
        keyword = "TransferSyntaxUID"
        raise MissingAttributeError(keyword, "set dataset.file_meta.TransferSyntaxUID (PS3.10 7.1)")
    uid = UID(syntax)
    try:
        decoder = get_decoder(uid)
    except NotImplementedError:
        known = uid.name if uid.is_transfer_syntax and not uid.is_private else "a private or unknown one"
        msg = f"the transfer syntax ({known}) has no decoder: have the file converted to an image transfer syntax"
        raise UnsupportedTransferSyntaxError(msg) from None
    if not decoder.is_available:
        msg = f"no decoder for {uid.name} is installed: pip install 'radserve[codecs]'"
        raise UnsupportedTransferSyntaxError(msg)
    return decoder


def _check_size(dataset: Dataset, keyword: str, *, native: bool) -> None:
    """Refuse what the attributes promise but the file does not hold, or what no frame can be."""
    pixels = positive(dataset, "Rows") * positive(dataset, "Columns")
    samples = positive(dataset, "SamplesPerPixel", default=1)
    if pixels * samples > MAX_FRAME_PIXELS:
        msg = f"a frame has more than {MAX_FRAME_PIXELS >> 20} million samples, the most this SDK decodes"
        raise DecodeError(msg)
    element = dataset[keyword]
    if element.value is None or len(element.value) == 0:
        raise MissingAttributeError(keyword, "the file holds no image")
    if not native:
        return
    stored_bits, high_bit = numbers(dataset, "BitsStored"), numbers(dataset, "HighBit")
    if keyword == "PixelData" and stored_bits and high_bit and high_bit[0] != stored_bits[0] - 1:
        msg = "HighBit is not BitsStored - 1 (PS3.5 8.1.1)"
        raise DecodeError(msg)
    bits = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(keyword) or positive(dataset, "BitsAllocated")
    frame_bits = pixels * samples * bits
    if text(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        frame_bits = frame_bits * 2 // 3
    if (frame_bits * positive(dataset, "NumberOfFrames", default=1) + 7) // 8 > len(element.value):
        raise DecodeError(_DAMAGED)


def _decode(decoder: Decoder, dataset: Dataset, index: int) -> tuple[Stored, str, int]:
    """Stored values of one frame, their photometric interpretation and bits."""
    try:
        stored, properties = decoder.as_array(dataset, index=index)
    except Exception as error:  # noqa: BLE001 - whatever the decoders raise, the file cannot be used
        if isinstance(error, AttributeError):
            msg = "an attribute of the Image Pixel module (PS3.3 C.7.6.3) is missing or contradicts the others"
            raise DecodeError(msg) from None
        if JPEGExtended12Bit == decoder.UID and numbers(dataset, "BitsStored") != (8.0,):
            msg = "12-bit JPEG Extended has no decoder under a permissive licence: have the file converted"
            raise UnsupportedTransferSyntaxError(msg) from None
        raise DecodeError(_DAMAGED) from None
    rows, columns = positive(dataset, "Rows"), positive(dataset, "Columns")
    if stored.shape[:2] != (rows, columns):
        raise DecodeError(_DAMAGED)
    return stored, str(properties["photometric_interpretation"]), int(properties.get("bits_stored", 0))


def _to_rgb(dataset: Dataset, stored: Stored, photometric: str, bits_stored: int) -> NDArray[np.uint8]:
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
        bits_stored = stored.dtype.itemsize * 8
        photometric = "RGB"
    if photometric != "RGB" or stored.ndim != 3 or stored.shape[2] != 3:  # noqa: PLR2004 - axes and samples of RGB
        msg = "the PhotometricInterpretation is none that this SDK converts to RGB"
        raise DecodeError(msg)
    if stored.dtype == np.uint8:
        return cast("NDArray[np.uint8]", stored)
    scaled = stored.astype(np.float32) * (_8_BIT_MAX / (2**bits_stored - 1))
    rounded: NDArray[np.uint8] = np.rint(scaled).clip(0, _8_BIT_MAX).astype(np.uint8)
    return rounded


def _modality_values(dataset: Dataset, stored: Stored, index: int) -> NDArray[np.float32]:
    """Modality LUT (PS3.3 C.11.1): a table, or slope and intercept."""
    tables = dataset.get("ModalityLUTSequence")
    if tables:
        lut = lookup_table(tables[0], dataset, signed=_is_signed(dataset))
        return lut.table[np.clip(stored.astype(np.int64) - lut.first, 0, len(lut.table) - 1)].astype(np.float32)
    rescale = _rescale(dataset, index)
    if rescale is None and text(dataset, "Modality") == "CT":
        keyword = "RescaleSlope"
        raise MissingAttributeError(keyword, "without it and RescaleIntercept the values have no scale (HU)")
    slope, intercept = rescale or (1.0, 0.0)
    # float32 holds 16-bit stored values exactly, wider ones need float64 on the way.
    values: NDArray[np.floating[Any]] = stored.astype(np.float32 if stored.dtype.itemsize <= 2 else np.float64)  # noqa: PLR2004 - bytes
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused just below
        if (slope, intercept) != (1.0, 0.0):
            values *= slope
            values += intercept
        modality: NDArray[np.float32] = values.astype(np.float32, copy=False)
    if not np.isfinite(modality).all():
        msg = "the image holds values that are not finite numbers"
        raise DecodeError(msg)
    return modality


def _rescale(dataset: Dataset, index: int) -> tuple[float, float] | None:
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
    return slope[0], intercept[0]


def _is_signed(dataset: Dataset) -> bool:
    return numbers(dataset, "PixelRepresentation")[:1] == (1.0,)


def _modality_is_signed(dataset: Dataset, index: int) -> bool:
    """Whether modality values can be negative (PS3.3 C.11.2.1.1)."""
    if dataset.get("ModalityLUTSequence"):
        return False
    signed = _is_signed(dataset)
    rescale = _rescale(dataset, index)
    if rescale is None:
        return signed
    span = 2.0 ** min(64, positive(dataset, "BitsStored", default=16))
    lowest = -span / 2 if signed else 0.0
    return min(lowest * rescale[0], (lowest + span - 1) * rescale[0]) + rescale[1] < 0


def _voi(dataset: Dataset, index: int) -> tuple[VoiWindow | VoiLut, ...]:
    """VOI LUTs, then windows, as the file orders them (PS3.3 C.11.2)."""
    tables = dataset.get("VOILUTSequence") or ()
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
    padding = numbers(dataset, "PixelPaddingValue")
    if not padding or stored.dtype.kind == "f":
        return None
    limit = numbers(dataset, "PixelPaddingRangeLimit") or padding
    low, high = sorted((_as_stored(padding[0], stored.dtype), _as_stored(limit[0], stored.dtype)))
    valid: NDArray[np.bool_] = (stored < low) | (stored > high)
    return None if bool(valid.all()) else valid


def _as_stored(value: float, dtype: np.dtype[Any]) -> float:
    """Undo the wrong sign of a value that was written as US where SS was due."""
    if dtype.kind == "i" and value > np.iinfo(dtype.name).max:
        return value - 2.0 ** (8 * dtype.itemsize)
    return value


def _pixel_spacing(dataset: Dataset, index: int) -> tuple[float, float] | None:
    """Pixel Spacing (PS3.3 10.7.1.1); Imager Pixel Spacing is the detector's, larger than in the patient."""
    spacing = numbers(functional_group(dataset, index, "PixelMeasuresSequence"), "PixelSpacing")
    return (spacing[0], spacing[1]) if len(spacing) == 2 and min(spacing) > 0 else None  # noqa: PLR2004 - rows and columns
