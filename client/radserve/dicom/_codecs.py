"""Which decoder reads which transfer syntax, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from radserve.dicom._codestream import JPEG_2000
from radserve.dicom._gdcm import decode_12_bit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Stored: TypeAlias = NDArray[np.integer[Any] | np.floating[Any]]
    Options: TypeAlias = dict[str, Any]

_12_BIT = "gdcm, 12 bits"
# One decoder each. pydicom would try GDCM first for all of them, and a damaged frame can kill the process through it.
_DECODERS: dict[UID, str] = {
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    **dict.fromkeys(JPEG_2000, "pylibjpeg"),
}
# Pillow's JPEG decoder alone is a base dependency, fast and hardened by browsers' use of it.
_SAFE = "pillow"


@dataclass(frozen=True, kw_only=True, repr=False)
class Frame:
    """One frame, decoded.

    Attributes:
        stored: Stored values ``(rows, columns)`` or ``(rows, columns, samples)``, the unused bits cleared.
        photometric_interpretation: Of the stored values: a decoder may have converted them.
        bits_stored: Bits of a value; 0 for floating point.
    """

    stored: Stored
    photometric_interpretation: str
    bits_stored: int


def decoder_of(syntax: UID, precision: int) -> str | None:
    """The decoder for a compressed transfer syntax; None if there is none."""
    if syntax == JPEGExtended12Bit and precision > 8:  # noqa: PLR2004 - what Pillow's libjpeg decodes
        return _12_BIT
    return _DECODERS.get(syntax)


def is_installed(syntax: UID, decoder: str) -> bool:
    """Whether a decoder can be used."""
    if decoder == _12_BIT:
        return is_installed(JPEGLossless, "gdcm")
    return decoder in get_decoder(syntax).available_plugins


def needs_isolation(decoder: str) -> bool:
    """Whether a hostile frame may kill, stall or swell the process that decodes it."""
    return decoder != _SAFE


def decode_here(data: bytes, syntax: UID, decoder: str, options: Options) -> Frame:
    """Decode one frame in this process.

    Args:
        data: The codestream, its header checked.
        syntax: Its transfer syntax.
        decoder: As ``decoder_of`` says.
        options: What the data set says, as pydicom's ``Decoder.as_array`` takes it for one frame.

    Raises:
        Exception: Whatever the decoder raises.
    """
    if decoder == _12_BIT:
        pixels = decode_12_bit(data, rows=int(options["rows"]), columns=int(options["columns"]))
        return decode_native(pixels, {**options, "bits_allocated": 16})
    source = encapsulate([data])
    stored, properties = get_decoder(syntax).as_array(source, index=0, raw=True, decoding_plugin=decoder, **options)
    return _frame(stored, properties)


def decode_native(pixels: bytes | memoryview, options: Options) -> Frame:
    """Read one frame of native little endian pixel data; see ``decode_here``."""
    stored, properties = get_decoder(ExplicitVRLittleEndian).as_array(pixels, index=0, raw=True, **options)
    return _frame(stored, properties)


def _frame(stored: Stored, properties: dict[str, Any]) -> Frame:
    return Frame(
        stored=stored,
        photometric_interpretation=str(properties["photometric_interpretation"]),
        bits_stored=int(properties.get("bits_stored", 0)),
    )
