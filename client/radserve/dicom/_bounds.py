"""Bounds on what a data set may cost to read: elements, long values, and sequences that pydicom parses later."""

from __future__ import annotations

from io import SEEK_CUR, BytesIO
from typing import TYPE_CHECKING

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import read_sequence

from radserve.errors import DecodeError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_ELEMENTS = 400_000
MAX_VALUE_BYTES = 2**18
TRUNCATED = "the DICOM file is truncated: fetch it again"
_TOO_LONG = "a value is longer than any that its attribute can have: the file is damaged, fetch it again"
_HEADER_BYTES = 8
_UNDEFINED_LENGTH = 0xFFFFFFFF
_SMALL_BYTES = 2**16  # whatever is no longer costs little, however it is made
_ITEM = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_ITEM_COST = 4  # a data set of its own takes about as long as four elements
_CHARACTER_SET = (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")
_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
# Read as bytes or one text, not value by value.
_BULK_VR = {"OB", "OD", "OF", "OL", "OV", "OW", "OB or OW", "UN", "UT", "LT", "ST", "UR"}


class BoundedStream(BytesIO):
    """Counts the elements that pydicom reads, and remembers how the last read ended.

    Attributes:
        ended_well: The last read found no further element, nor a part of one.
        elements: How many elements were read; an item counts for several.
    """

    def __init__(self, data: bytes, elements: int = 0) -> None:
        super().__init__(data)
        self._data = memoryview(data)
        self.ended_well = False
        self.elements = elements
        self._header = b""

    def read(self, size: int | None = -1, /) -> bytes:
        """See ``io.BytesIO.read``.

        Raises:
            DecodeError: There are too many elements, or a Specific Character Set of no end.
        """
        if size == _HEADER_BYTES:
            data = super().read(size)
            # A complete data set ends where the next element's header would begin; some
            # writers leave a few zero bytes there.
            self.ended_well = len(data) < _HEADER_BYTES and not data.strip(b"\0")
            self._header = data
            self.elements += _ITEM_COST if data[:4] in _ITEM else 1
            if self.elements > MAX_ELEMENTS:
                msg = f"the data set has more than {MAX_ELEMENTS} elements, the most this SDK reads"
                raise DecodeError(msg)
            return data
        self.ended_well = False
        if size is not None and size > _SMALL_BYTES:
            if self._header[:4] in _CHARACTER_SET:  # pydicom decodes it at once, wherever it stands
                raise DecodeError(_TOO_LONG)
            if self._header[:4] in _PIXEL_DATA:  # by far the most of a file: not copied
                start = self.tell()
                self.seek(size, SEEK_CUR)
                return self._data[start : start + size]  # type: ignore[return-value]  # pydicom hands it on
        return super().read(size)


def check_values(dataset: Dataset, stream: BoundedStream) -> None:
    """Check that every value is as long as its element says, and no longer than it can be; pydicom checks neither.

    Long sequences are parsed now, their elements counted with the rest: pydicom
    would do so later, with no bound.

    Args:
        dataset: As pydicom has just read it.
        stream: From which it did.

    Raises:
        DecodeError: A value is cut off or too long to be believed, or there are too many elements.
    """
    for element in list(dataset.values()):
        if not isinstance(element, RawDataElement):
            for item in element.value if element.VR == "SQ" else ():
                check_values(item, stream)
        elif element.length not in (_UNDEFINED_LENGTH, 0):
            if len(element.value or b"") != element.length:
                raise DecodeError(TRUNCATED)
            if element.length > _SMALL_BYTES:
                _check_long_value(dataset, element, stream)


def _check_long_value(dataset: Dataset, raw: RawDataElement, stream: BoundedStream) -> None:
    vr = raw.VR
    if vr is None:  # implicit
        try:
            vr = dictionary_VR(raw.tag)
        except KeyError:
            return  # unknown, so nobody asks for it
    if vr == "SQ":
        items = BoundedStream(raw.value or b"", stream.elements)
        character_set = dataset.original_character_set
        sequence = read_sequence(items, raw.is_implicit_VR, raw.is_little_endian, raw.length, character_set)
        stream.elements = items.elements
        dataset[raw.tag] = DataElement(raw.tag, "SQ", sequence)
        for item in sequence:
            check_values(item, stream)
    elif vr not in _BULK_VR and raw.length > MAX_VALUE_BYTES:
        raise DecodeError(_TOO_LONG)
