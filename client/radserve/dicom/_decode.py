"""Stored values of one frame: bounds, then the frame's own header, then one named decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import UID, RLELossless

from radserve.dicom._attributes import numbers, positive, text
from radserve.dicom._codecs import Frame, decode_here, decode_native, decoder_of, is_installed, needs_isolation
from radserve.dicom._codestream import check_codestream
from radserve.dicom._fragments import encapsulated_frame
from radserve.dicom._isolated import DAMAGED, decode_isolated
from radserve.dicom._memory import Allocations, out_of_memory
from radserve.dicom._packbits import decode_rle
from radserve.errors import (
    DecodeError,
    MissingAttributeError,
    RadserveError,
    UnsupportedTransferSyntaxError,
    installing,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from radserve.dicom._budget import Budget
    from radserve.dicom._codecs import Options, Stored

MAX_FRAME_SAMPLES = 2**26
MAX_FRAME_BYTES = 2**27
_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_RGB_SAMPLES = 3


def decode_frame(dataset: Dataset, index: int, budget: Budget) -> Frame:
    """Decode one frame of an image (PS3.3 C.7.6.3, PS3.5 8 and annex A).

    Args:
        dataset: The whole data set.
        index: Which frame, counted from 0; below Number of Frames.
        budget: How long decoders may take.

    Raises:
        MissingAttributeError: There are no pixel data, or no attribute that tells how to read them.
        DecodeError: They are damaged, contradict the data set or are larger than this SDK decodes.
        UnsupportedTransferSyntaxError: There is no decoder, or it is not installed.
    """
    keyword = next((name for name in _PIXEL_KEYWORDS if name in dataset), None)
    if keyword is None:
        raise MissingAttributeError(_PIXEL_KEYWORDS[0], "the file holds no image")
    syntax = _transfer_syntax(dataset)
    _check_size(dataset, keyword)
    allocations = Allocations()
    try:
        if not syntax.is_encapsulated:
            _check_native_length(dataset, keyword)
            return _native(dataset, keyword, syntax, index)
        return _encapsulated(dataset, syntax, index, budget)
    except RadserveError:
        raise
    except AttributeError:
        msg = "an attribute of the Image Pixel module (PS3.3 C.7.6.3) is missing or contradicts the others"
        raise DecodeError(msg) from None
    except Exception as error:  # noqa: BLE001 - whatever the decoders raise, the file cannot be used
        raise (out_of_memory() if allocations.failed(error) else DecodeError(DAMAGED)) from None


def _transfer_syntax(dataset: Dataset) -> UID:
    meta = getattr(dataset, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta is not None else None
    if not syntax:
        keyword = "TransferSyntaxUID"
        raise MissingAttributeError(keyword, "set dataset.file_meta.TransferSyntaxUID (PS3.10 7.1)")
    uid = UID(syntax)
    native = uid.is_transfer_syntax and not uid.is_private and not uid.is_encapsulated
    if not (native or uid == RLELossless or decoder_of(uid, 0)):
        known = uid.name if uid.is_transfer_syntax and not uid.is_private else "a private or unknown one"
        msg = f"the transfer syntax ({known}) has no decoder: have the file converted to an image transfer syntax"
        raise UnsupportedTransferSyntaxError(msg)
    return uid


def _check_size(dataset: Dataset, keyword: str) -> None:
    """Refuse what no frame can be, before anything is allocated for it."""
    # A palette makes three samples of one.
    is_monochrome = text(dataset, "PhotometricInterpretation") in _MONOCHROME
    samples = max(positive(dataset, "SamplesPerPixel", default=1), 1 if is_monochrome else _RGB_SAMPLES)
    samples *= positive(dataset, "Rows") * positive(dataset, "Columns")
    if samples > MAX_FRAME_SAMPLES or samples * _bits_allocated(dataset, keyword) > 8 * MAX_FRAME_BYTES:
        msg = (
            f"a frame has more than {MAX_FRAME_SAMPLES >> 20} million samples or {MAX_FRAME_BYTES >> 20} MiB, "
            "the most this SDK decodes"
        )
        raise DecodeError(msg)
    value = dataset[keyword].value
    if isinstance(value, bytes | memoryview) and len(value):
        return
    if value:  # pydicom makes a list of numbers of a bytearray
        msg = f"{keyword} is a {type(value).__name__}: set it to bytes(...), or fetch the file again"
        raise DecodeError(msg)
    raise MissingAttributeError(keyword, "the file holds no image")


def _bits_allocated(dataset: Dataset, keyword: str) -> int:
    return {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(keyword) or positive(dataset, "BitsAllocated")


def _check_native_length(dataset: Dataset, keyword: str) -> None:
    """Refuse what the attributes promise but the file does not hold."""
    stored_bits, high_bit = numbers(dataset, "BitsStored"), numbers(dataset, "HighBit")
    if keyword == "PixelData" and stored_bits and high_bit and high_bit[0] != stored_bits[0] - 1:
        msg = "HighBit is not BitsStored - 1 (PS3.5 8.1.1)"
        raise DecodeError(msg)
    frame_bits = positive(dataset, "Rows") * positive(dataset, "Columns")
    frame_bits *= positive(dataset, "SamplesPerPixel", default=1) * _bits_allocated(dataset, keyword)
    if text(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        frame_bits = frame_bits * 2 // 3
    if (frame_bits * positive(dataset, "NumberOfFrames", default=1) + 7) // 8 > len(dataset[keyword].value):
        raise DecodeError(DAMAGED)


def _native(dataset: Dataset, keyword: str, syntax: UID, index: int) -> Frame:
    # A view of one frame would keep the others in memory, too.
    is_alone = positive(dataset, "NumberOfFrames", default=1) == 1
    options: Options = {"raw": True, "view_only": is_alone, "correct_unused_bits": False}
    stored, properties = get_decoder(syntax).as_array(dataset, index=index, **options)
    if not memoryview(dataset[keyword].value).readonly:  # a caller's buffer, which may be used again
        stored = stored.copy()
    bits_stored = int(properties.get("bits_stored", 0))
    return Frame(
        stored=_without_unused_bits(stored, bits_stored),
        photometric_interpretation=str(properties["photometric_interpretation"]),
        bits_stored=bits_stored,
    )


def _without_unused_bits(stored: Stored, bits_stored: int) -> Stored:
    """Clear the bits above the stored ones (PS3.5 8.1.1), or copy the sign to them; few files have others there."""
    unused = 8 * stored.dtype.itemsize - bits_stored
    if stored.dtype.kind == "f" or not unused:
        return stored
    lowest = -(2 ** (bits_stored - 1)) if stored.dtype.kind == "i" else 0
    if stored.max() < lowest + 2**bits_stored and (lowest == 0 or stored.min() >= lowest):
        return stored
    cleared: Stored = np.right_shift(np.left_shift(stored, unused), unused)
    return cleared


def _encapsulated(dataset: Dataset, syntax: UID, index: int, budget: Budget) -> Frame:
    options = _options(dataset)
    rows, columns, bits = (positive(dataset, name) for name in ("Rows", "Columns", "BitsAllocated"))
    samples = positive(dataset, "SamplesPerPixel", default=1)
    frame = encapsulated_frame(dataset, index)
    if syntax == RLELossless:
        pixels = decode_rle(frame, pixels=rows * columns, samples=samples, bytes_per_sample=(bits + 7) // 8)
        return decode_native(pixels, {**options, "planar_configuration": 1})
    found = check_codestream(frame, syntax, rows=rows, columns=columns, samples=samples)
    if found.precision > bits:
        msg = "a frame's own header contradicts BitsAllocated"
        raise DecodeError(msg)
    decoder = decoder_of(syntax, found.precision)
    if decoder is None or not is_installed(syntax, decoder):
        msg = f"no decoder for {syntax.name} is installed: {installing('codecs')}"
        raise UnsupportedTransferSyntaxError(msg, is_final=False)
    if samples > 1:  # decoders give pixel by pixel; the attribute does not matter here (PS3.5 8.2)
        options = {**options, "planar_configuration": 0}
    if needs_isolation(decoder):
        decoded = decode_isolated(found.data, syntax, decoder, options, budget)
    else:
        decoded = decode_here(found.data, syntax, decoder, options)
    if decoded.stored.shape[:2] != (rows, columns):
        raise DecodeError(DAMAGED)
    return decoded


def _options(dataset: Dataset) -> Options:
    """What pydicom's decoders need to know of one frame."""
    options = as_pixel_options(dataset)
    options.pop("extended_offsets", None)
    told = {name: value for name, value in options.items() if value is not None}
    named = {name: str(value) if isinstance(value, str) else int(value) for name, value in told.items()}
    return {**named, "number_of_frames": 1, "pixel_keyword": "PixelData"}
