"""RLE Lossless (PS3.5 annex G), decoded up to the size of the frame and no further."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from radserve.errors import DecodeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADER = struct.Struct("<16I")
_SLACK_BYTES = 64


def decode_rle(frame: bytes, *, pixels: int, samples: int, bytes_per_sample: int) -> memoryview:
    """Decode one frame.

    Args:
        frame: RLE header and segments.
        pixels: Rows by columns.
        samples: Samples per Pixel (0028,0002).
        bytes_per_sample: Bits Allocated (0028,0100) through 8.

    Returns:
        Native pixel data, little endian, colour by plane (Planar Configuration 1).

    Raises:
        DecodeError: The segments do not fill the frame.
    """
    decoded = np.empty((samples, pixels, bytes_per_sample), np.uint8)
    segments = _segments(frame, samples * bytes_per_sample)
    for index, segment in enumerate(segments):
        sample, byte = divmod(index, bytes_per_sample)
        # The most significant byte comes first (G.2).
        decoded[sample, :, bytes_per_sample - 1 - byte] = _unpack(segment, pixels)
    return decoded.reshape(-1).data


def _segments(frame: bytes, expected: int) -> list[bytes]:
    """The segments that the header names (G.5), in their order."""
    if len(frame) >= _HEADER.size:
        count, *offsets = _HEADER.unpack_from(frame)
        bounds = [*offsets[:count], len(frame)]
        if count == expected and bounds[0] == _HEADER.size and bounds == sorted(bounds):
            return [frame[start:end] for start, end in pairwise(bounds)]
    msg = "the RLE header contradicts SamplesPerPixel, BitsAllocated or the length of the frame (PS3.5 G.5)"
    raise DecodeError(msg)


def _unpack(segment: bytes, size: int) -> NDArray[np.uint8]:
    # The worst encoder takes two bytes for one. Pillow's decoder stops where the line is full.
    if len(segment) > 2 * size + _SLACK_BYTES:
        msg = "an RLE segment is longer than the frame can be: the file is damaged, fetch it again"
        raise DecodeError(msg)
    try:
        line = Image.frombytes("L", (size, 1), segment, "packbits", "L")
    except ValueError:
        msg = "an RLE segment ends before the frame is full: the file is damaged, fetch it again"
        raise DecodeError(msg) from None
    unpacked: NDArray[np.uint8] = np.asarray(line)[0]
    return unpacked
