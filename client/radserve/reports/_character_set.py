"""Text in reports: kept as Unicode while one is made, and in the source's character set at the end, if it can hold it.

A source's Specific Character Set (PS3.3 C.12.1.1.2) is not always one that a report can
keep: what a model says may be Chinese where the file is Latin-1, and a GB18030 character
can hold the byte 5CH, which many readers take for the delimiter of values (PS3.5 6.1.2.3).
Such a report is written in UTF-8, so that no reader loses a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.multival import MultiValue
from pydicom.valuerep import VR, PersonName

from radserve.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

UTF_8 = "ISO_IR 192"
_TEXTS = {VR.LO, VR.LT, VR.PN, VR.SH, VR.ST, VR.UC, VR.UT}
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"
_DEFAULT = {"", "ISO_IR 6", "ISO 2022 IR 6"}
# pydicom 3.0 decodes what follows the escape sequence of ISO-IR 58, and leaves that in the text.
_ESCAPE, _OF_ISO_IR_58 = "\x1b", "\x1b$)A"
# GBK is GB18030 without its four-byte characters, and fewer readers know it.
_WIDER = {"GBK": "GB18030"}


def character_set(dataset: Dataset) -> tuple[str, ...]:
    """The values of Specific Character Set; empty for the default repertoire."""
    value = dataset.get("SpecificCharacterSet")
    values = [value] if isinstance(value, str) else list(value or ())
    return tuple(values) if set(values) - _DEFAULT else ()


def to_unicode(dataset: Dataset, declared: Sequence[str]) -> None:
    """Make every text of a data set Unicode, and forget how it was encoded.

    Args:
        dataset: Changed in place, the items of its sequences, too.
        declared: What it, or what it is taken from, gives as Specific Character Set.

    Raises:
        DecodeError: A text is not of the character set that the file declares.
    """
    for element in _elements(dataset):
        if element.VR not in _TEXTS or not element.value:
            continue
        texts = [str(value).replace(_OF_ISO_IR_58, "") for value in _values(element)]
        if any(_UNREADABLE in text or _ESCAPE in text for text in texts) or not (
            declared or all(text.isascii() for text in texts)
        ):
            msg = f"{element.keyword} is not of the file's SpecificCharacterSet: correct the file, or its name is lost"
            raise DecodeError(msg)
        element.value = texts if isinstance(element.value, MultiValue) else texts[0]
    _forget(dataset)


def encode_as(dataset: Dataset, wanted: Sequence[str]) -> None:
    """Set Specific Character Set: the one wanted if it holds every text, else UTF-8."""
    kept = [_WIDER.get(value, value) for value in wanted]
    texts = [
        (str(value), element.VR)
        for element in _elements(dataset)
        if element.VR in _TEXTS
        for value in _values(element)
        if value
    ]
    if all(text.isascii() for text, _ in texts) and not wanted:
        dataset.pop("SpecificCharacterSet", None)
    elif wanted and all(_holds(kept, text, is_name=vr == VR.PN) for text, vr in texts):
        dataset.SpecificCharacterSet = kept[0] if len(kept) == 1 else kept
    else:
        dataset.SpecificCharacterSet = UTF_8
    for element in _elements(dataset):  # names remember what they were last encoded in
        if element.VR == VR.PN and element.value:
            names = [PersonName(str(value)) for value in _values(element)]
            element.value = names if isinstance(element.value, MultiValue) else names[0]


def _holds(wanted: Sequence[str], text: str, *, is_name: bool) -> bool:
    encodings = convert_encodings(list(wanted))
    letters = text.replace("\r", "").replace("\n", "").replace("\f", "").replace("\t", "")
    if letters.isascii():
        return True
    if not all(any(_encodes(letter, encoding) for encoding in encodings) for letter in set(letters)):
        return False
    parts = letters.replace("^", "=").split("=") if is_name else [letters]
    for part in parts:
        encoded = encode_string(part, encodings)
        if encoded.count(b"\\") != part.count("\\") or decode_bytes(encoded, encodings, set()) != part:
            return False
    return True


def _encodes(letter: str, encoding: str) -> bool:
    try:
        letter.encode(encoding)
    except UnicodeError:
        return False
    return True


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        yield element
        if element.VR == VR.SQ:
            for item in element.value or ():
                yield from _elements(item)


def _values(element: DataElement) -> list[object]:
    return list(element.value) if isinstance(element.value, MultiValue) else [element.value]


def _forget(dataset: Dataset) -> None:
    dataset.pop("SpecificCharacterSet", None)
    for element in dataset:
        if element.VR == VR.SQ:
            for item in element.value or ():
                _forget(item)
