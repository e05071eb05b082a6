"""Lookup tables of modality, VOI and colour (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6, C.7.9.2, C.11.1.1, C.11.2.1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from radserve.dicom._attributes import numbers
from radserve.errors import DecodeError
from radserve.sources import VoiLut

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

    Entries = NDArray[np.integer[Any]]

_MAX_ENTRIES = 2**16
_BITS = range(8, 17)
_BYTE_MAX = 255
_DISCRETE, _LINEAR = 0, 1  # segment opcodes


def lookup_table(item: Dataset, dataset: Dataset, *, signed: bool) -> VoiLut:
    """LUT Descriptor (0028,3002) and LUT Data (0028,3006) of a modality or VOI LUT.

    Args:
        item: The sequence item that holds them.
        dataset: The whole data set.
        signed: Whether the values that the table maps can be negative: its first
            mapped value then counts as signed, whatever VR it was written in.

    Raises:
        DecodeError: They contradict each other or PS3.3 C.11.1.1.
    """
    entries, first, bits = _descriptor(item, "LUTDescriptor", signed=signed)
    table = _entries(item, "LUTData", entries, little_endian=_is_little_endian(dataset))
    return VoiLut(first=first, table=_whole("LUTData", table, entries), bits=bits)


def palette(dataset: Dataset, *, signed: bool) -> tuple[VoiLut, ...]:
    """The palette's red, green and blue table, their entries brought to 8 bits.

    Args:
        dataset: The whole data set.
        signed: As of ``lookup_table``.

    Raises:
        DecodeError: A table is absent, contradicts its descriptor, or has indirect segments.
    """
    little = _is_little_endian(dataset)
    tables = []
    for colour in ("Red", "Green", "Blue"):
        keyword = f"{colour}PaletteColorLookupTable"
        entries, first, bits = _descriptor(dataset, f"{keyword}Descriptor", signed=signed)
        if f"Segmented{keyword}Data" in dataset and f"{keyword}Data" not in dataset:
            table = _segmented(dataset[f"Segmented{keyword}Data"], entries, bits, little_endian=little)
        else:
            table = _entries(dataset, f"{keyword}Data", entries, little_endian=little)
        table = _whole(f"{keyword}Data", table, entries)
        highest = 2**bits - 1
        if int(table.max()) > highest:  # some write 8 bits in the descriptor, and entries of 16
            highest = _MAX_ENTRIES - 1
        scaled = np.rint(table * (_BYTE_MAX / highest)).astype(np.uint16)
        tables.append(VoiLut(first=first, table=scaled, bits=8))
    return tuple(tables)


def _is_little_endian(dataset: Dataset) -> bool:
    return bool(dataset.original_encoding[1] is not False)


def _descriptor(item: Dataset, keyword: str, *, signed: bool) -> tuple[int, int, int]:
    """Number of entries, first value mapped and bits of an entry."""
    descriptor = numbers(item, keyword)
    if len(descriptor) != 3 or int(descriptor[2]) not in _BITS:  # noqa: PLR2004 - entries, first value, bits
        msg = f"{keyword} does not hold entries, first value and 8 to 16 bits (PS3.3 C.11.1.1)"
        raise DecodeError(msg)
    entries, first, bits = (int(value) % _MAX_ENTRIES for value in descriptor)
    if signed and first >= _MAX_ENTRIES // 2:
        first -= _MAX_ENTRIES
    return entries or _MAX_ENTRIES, first, bits


def _whole(keyword: str, table: Entries, entries: int) -> NDArray[np.uint16]:
    if len(table) < entries:
        msg = f"{keyword} is shorter than its descriptor says"
        raise DecodeError(msg)
    return table[:entries].astype(np.uint16)


def _entries(item: Dataset, keyword: str, count: int, *, little_endian: bool) -> Entries:
    element = item[keyword] if keyword in item else None  # noqa: SIM401 - get() gives the value of a keyword
    if element is None or element.value is None:
        return np.empty(0, np.uint16)
    if not isinstance(element.value, bytes):
        return np.atleast_1d(np.asarray(element.value, dtype=np.int64))
    # How wide entries lie is told by the length, not by the descriptor's bits (PS3.3 C.7.6.3.1.6).
    if len(element.value) >= 2 * count:
        return _words(element.value, little_endian=little_endian)
    return _bytes(element, little_endian=little_endian)


def _words(data: bytes, *, little_endian: bool) -> Entries:
    return np.frombuffer(data, "<u2" if little_endian else ">u2", len(data) // 2)


def _bytes(element: DataElement, *, little_endian: bool) -> Entries:
    """Entries of one byte, two in a word: the first one is the word's less significant half."""
    if element.VR == "OW" and not little_endian:
        return np.frombuffer(_words(element.value, little_endian=False).astype("<u2").tobytes(), "u1")
    return np.frombuffer(element.value, "u1")


def _segmented(element: DataElement, count: int, bits: int, *, little_endian: bool) -> Entries:
    """Expand segments, to no more entries than one segment beyond the count (PS3.3 C.7.9.2)."""
    wide = bits > 8  # noqa: PLR2004 - bits of a byte
    data = (
        _words(element.value, little_endian=little_endian) if wide else _bytes(element, little_endian=little_endian)
    ).astype(np.int64)
    parts: list[Entries] = []
    start = found = 0
    while found < count and start + 2 < len(data):
        opcode, length = int(data[start]), int(data[start + 1])
        taken = length if opcode == _DISCRETE else 1
        values = data[start + 2 : start + 2 + taken]
        if opcode == _LINEAR and parts:
            values = np.rint(np.linspace(parts[-1][-1], values[0], length + 1)[1:]).astype(np.int64)
        elif opcode != _DISCRETE:
            # Readers disagree on what the offset of an indirect one counts.
            msg = "a segmented palette begins with a linear segment, or has indirect ones, which this SDK does not read"
            raise DecodeError(msg)
        if len(values) < max(length, 1):
            break
        parts.append(values)
        found += length
        start += 2 + taken
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
