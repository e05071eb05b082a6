"""What a compressed frame says of itself, read before any decoder sees it.

A decoder allocates what the codestream asks for, whatever the data set says of
the image: so the two must agree first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from radserve.errors import DecodeError

JPEG_2000 = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
_SEQUENTIAL = (0xC0, 0xC1)
# Start of frame markers (ISO/IEC 10918-1 B.1.1.3, 14495-1 C.1.1) of the processes in PS3.5 A.4.1 and A.4.3. Files
# of the baseline syntax that are marked extended sequential exist, and every decoder of it reads them.
_START_OF_FRAME: dict[UID, tuple[int, ...]] = {
    JPEGBaseline8Bit: _SEQUENTIAL,
    JPEGExtended12Bit: _SEQUENTIAL,
    JPEGLossless: (0xC3,),
    JPEGLosslessSV1: (0xC3,),
    JPEGLSLossless: (0xF7,),
    JPEGLSNearLossless: (0xF7,),
}
_ANY_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
_LENGTHLESS = {0x01, *range(0xD0, 0xDA)}
_JP2_SIGNATURE = bytes.fromhex("0000000c6a5020200d0a870a")
_JP2_CODESTREAM = b"jp2c"
_SIZ = bytes.fromhex("ff4fff51")
_MOST_TILES = 65535
_END = b"\xff\xd9"  # of an image (JPEG, JPEG-LS) and of a codestream (JPEG 2000)
_TAIL_BYTES = 10  # padding may follow it


@dataclass(frozen=True, kw_only=True)
class Codestream:
    """One compressed frame, and what it holds by its own word.

    Attributes:
        data: The codestream, out of its JP2 file if it came in one.
        rows: Height.
        columns: Width.
        samples: Components of a pixel.
        precision: Bits of a sample.
    """

    data: bytes
    rows: int
    columns: int
    samples: int
    precision: int


def check_codestream(frame: bytes, syntax: UID, *, rows: int, columns: int, samples: int) -> Codestream:
    """Read a frame's own header and compare it with the data set.

    Args:
        frame: One frame: JPEG (ISO/IEC 10918-1), JPEG-LS (14495-1) or JPEG 2000 (15444-1, -15).
        syntax: The transfer syntax.
        rows: Rows (0028,0010).
        columns: Columns (0028,0011).
        samples: Samples per Pixel (0028,0002).

    Raises:
        DecodeError: It has no readable header or no end, is of another process than
            the transfer syntax says, or of another size than the data set says.
    """
    try:
        found = _jpeg_2000(frame) if syntax in JPEG_2000 else _jpeg(frame, _START_OF_FRAME[syntax])
    except (struct.error, IndexError):
        found = None
    if found is None:
        msg = "a frame has no header of the transfer syntax's kind: the file is damaged, fetch it again"
        raise DecodeError(msg)
    if _END not in found.data[-_TAIL_BYTES:]:
        # Most decoders would fill up what is missing, and say nothing.
        msg = "a frame has no end: the file is truncated, fetch it again"
        raise DecodeError(msg)
    if (found.rows, found.columns, found.samples) != (rows, columns, samples):
        msg = "a frame's own header contradicts Rows, Columns or SamplesPerPixel"
        raise DecodeError(msg)
    return found


def _jpeg(frame: bytes, processes: tuple[int, ...]) -> Codestream | None:
    """JPEG and JPEG-LS: the one start of frame before the first scan (ISO/IEC 10918-1 B.2.2)."""
    if frame[:2] != b"\xff\xd8":
        return None
    found: Codestream | None = None
    position = 2
    while True:
        if frame[position] != 0xFF:  # noqa: PLR2004 - the first byte of a marker
            return None
        marker = frame[position + 1]
        if marker == 0xFF:  # noqa: PLR2004 - fill bytes may come before a marker
            position += 1
            continue
        if marker == _START_OF_SCAN:
            # A scan may be a few bytes long and still cost the decoder a pass over the whole frame.
            return found if found and frame.count(b"\xff\xda", position) <= found.samples else None
        if marker in _LENGTHLESS:
            return None
        if marker in _ANY_START_OF_FRAME:
            if found is not None or marker not in processes:
                return None
            precision, rows, columns, samples = struct.unpack_from(">BHHB", frame, position + 4)
            found = Codestream(data=frame, rows=rows, columns=columns, samples=samples, precision=precision)
        position += 2 + int(struct.unpack_from(">H", frame, position + 2)[0])


def _jpeg_2000(frame: bytes) -> Codestream | None:
    """JPEG 2000: the SIZ marker segment (ISO/IEC 15444-1 A.5.1)."""
    data = _out_of_jp2(frame) if frame.startswith(_JP2_SIGNATURE) else frame
    if not data.startswith(_SIZ):
        return None
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, samples = struct.unpack_from(
        ">8IH", data, 8
    )
    precisions = {(data[42 + 3 * component] & 0x7F) + 1 for component in range(samples)}
    if not (tile_width and tile_height and len(precisions) == 1):
        return None
    if -((tile_left - right) // tile_width) * -((tile_top - bottom) // tile_height) > _MOST_TILES:
        return None
    return Codestream(data=data, rows=bottom - top, columns=right - left, samples=samples, precision=precisions.pop())


def _out_of_jp2(frame: bytes) -> bytes:
    """The contiguous codestream box of a JP2 file (ISO/IEC 15444-1 I.5.4), which DICOM has no use for (PS3.5 A.4.4)."""
    position = 0
    while True:
        length, kind = struct.unpack_from(">I4s", frame, position)
        if kind == _JP2_CODESTREAM:
            return frame[position + 8 : position + length if length else None]
        if length < 8:  # noqa: PLR2004 - a box's own header
            return b""
        position += length
