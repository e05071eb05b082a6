"""Which bytes of encapsulated pixel data are one frame (PS3.5 A.4)."""

from __future__ import annotations

import struct
from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING

from pydicom.uid import RLELossless

from radserve.dicom._attributes import get, positive
from radserve.errors import DecodeError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_FRAGMENTS = 2**17
_ITEM = 0xE000FFFE
_DELIMITER = 0xE0DDFFFE
_HEADER = struct.Struct("<II")
_START_OF_IMAGE = b"\xff\xd8\xff"
_END_OF_IMAGE = b"\xff\xd9"
# Behind the end of a frame there may be padding.
_TAIL_BYTES = 10


def encapsulated_frame(dataset: Dataset, index: int) -> bytes:
    """One frame of encapsulated Pixel Data (7FE0,0010), put together from its fragments.

    Args:
        dataset: The whole data set.
        index: Which frame, counted from 0; below Number of Frames.

    Raises:
        DecodeError: Fragments, offset table and Number of Frames contradict each other.
    """
    data = dataset.PixelData
    frames = positive(dataset, "NumberOfFrames", default=1)
    table, *fragments = _items(data)
    bounds = _bounds(dataset, data, table, fragments, frames)
    first, end = bounds[index], bounds[index + 1]
    frame = b"".join(data[start : start + length] for start, length in fragments[first:end])
    if not frame:
        msg = "a frame is empty: the file is damaged, fetch it again"
        raise DecodeError(msg)
    return frame


def _items(data: bytes | memoryview) -> list[tuple[int, int]]:
    """Where the value of every item begins, and how long it is; the offset table is the first."""
    items = []
    position = 0
    while position + _HEADER.size <= len(data):
        tag, length = _HEADER.unpack_from(data, position)
        if tag == _DELIMITER:
            break
        position += _HEADER.size
        if tag != _ITEM or position + length > len(data):
            break
        items.append((position, length))
        position += length
        if len(items) > MAX_FRAGMENTS:
            msg = f"the pixel data are in more than {MAX_FRAGMENTS} fragments, the most this SDK reads"
            raise DecodeError(msg)
    else:
        tag = _DELIMITER if not bytes(data[position:]).strip(b"\0") else 0
    if tag != _DELIMITER or len(items) < 2:  # noqa: PLR2004 - the offset table and one fragment
        msg = "the pixel data are no sequence of fragments (PS3.5 A.4): the file is damaged, fetch it again"
        raise DecodeError(msg)
    return items


def _bounds(
    dataset: Dataset, data: bytes | memoryview, table: tuple[int, int], fragments: list[tuple[int, int]], frames: int
) -> list[int]:
    """Index of every frame's first fragment, and behind the last."""
    extended = get(dataset, "ExtendedOffsetTable")
    if extended:
        offsets = [offset for (offset,) in struct.iter_unpack("<Q", extended[: len(extended) // 8 * 8])]
    else:
        start, length = table
        offsets = [offset for (offset,) in struct.iter_unpack("<I", data[start : start + length // 4 * 4])]
    if offsets:
        bounds = _by_offsets(offsets, fragments)
    elif len(fragments) == frames or frames == 1:
        bounds = [*range(frames), len(fragments)]
    else:
        bounds = _by_markers(data, fragments)
    images = sum(data[start : start + len(_START_OF_IMAGE)] == _START_OF_IMAGE for start, _ in fragments)
    whole_frames = dataset.file_meta.TransferSyntaxUID == RLELossless
    if len(bounds) != frames + 1 or images > frames or (whole_frames and len(fragments) != frames):
        msg = "NumberOfFrames contradicts the fragments or the offset table of the pixel data (PS3.5 A.4)"
        raise DecodeError(msg)
    return bounds


def _by_offsets(offsets: list[int], fragments: list[tuple[int, int]]) -> list[int]:
    """Basic or extended offset table: from the first fragment's tag to the tag of a frame's first one."""
    starts = [start - fragments[0][0] for start, _ in fragments]
    found = [bisect_left(starts, offset) for offset in offsets]
    exact = all(place < len(starts) and starts[place] == offset for place, offset in zip(found, offsets, strict=True))
    rising = found[0] == 0 and all(low < high for low, high in pairwise(found))
    return [*found, len(fragments)] if exact and rising else []


def _by_markers(data: bytes | memoryview, fragments: list[tuple[int, int]]) -> list[int]:
    """Without a table: a frame ends with its end of image or codestream marker."""
    bounds = [0]
    for number, (start, length) in enumerate(fragments, 1):
        if _END_OF_IMAGE in bytes(data[max(start, start + length - _TAIL_BYTES) : start + length]):
            bounds.append(number)
    return bounds if bounds[-1] == len(fragments) else []
