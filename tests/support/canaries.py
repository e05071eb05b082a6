"""DICOM files in which every identifying attribute is a mark that can be found again wherever it leaks."""

from __future__ import annotations

import base64
import random
import string
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import quote

import pydicom
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.uid import UID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Text of these says how to read the file, not whose it is.
_NEEDED = {"RescaleType", "SpecificCharacterSet"}
# Longest value of a representation (PS3.5 table 6.2-1), as far as a mark needs it.
_LENGTHS = {"PN": 40, "LO": 40, "SH": 16, "ST": 40, "LT": 40, "UT": 40, "UC": 40}
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "DeviceUID")
_FIRST = 0x00080000  # before it stand commands and file meta information
_MOST = 400


class Canaries:
    """Marks, and where they are found.

    Args:
        seed: Of the marks.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - marks, no secrets
        self.marks: list[str] = []

    def mark(self, length: int = 40) -> str:
        """A new one, of letters that stand in no other text."""
        made = "ZQ" + "".join(self._random.choices(string.ascii_uppercase + string.digits, k=min(length, 24) - 2))
        self.marks.append(made)
        return made

    def fill(self, source: bytes) -> Dataset:
        """The data set of a file, with a mark in every identifying attribute and in private ones."""
        dataset = pydicom.dcmread(BytesIO(source))
        for keyword, representation in _text_attributes():
            setattr(dataset, keyword, self.mark(_LENGTHS[representation]))
        for keyword in _UIDS:
            uid = f"1.2.{self._random.randrange(10**30, 10**31)}"
            self.marks.append(uid)
            setattr(dataset, keyword, UID(uid))
        dataset.PatientBirthDate = "18530429"
        self.marks.append("18530429")
        other = Dataset()
        other.PatientID = self.mark()
        dataset.OtherPatientIDsSequence = [other]
        block = dataset.private_block(0x0099, self.mark(), create=True)
        block.add_new(0x01, "LO", self.mark())
        block.add_new(0x02, "UN", self.mark().encode())
        return dataset

    def found(self, place: str, *contents: bytes | str) -> list[str]:
        """Where a mark leaked to, in any of its usual spellings."""
        whole = b"\0".join(one.encode() if isinstance(one, str) else one for one in contents)
        return [f"{place}: {mark}" for mark in self.marks if any(form in whole for form in _spellings(mark))]


def saved(dataset: Dataset) -> bytes:
    """The file of a data set."""
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def _text_attributes() -> Iterator[tuple[str, str]]:
    """Names first, then every other text, as many as a reader takes."""
    texts = [
        (keyword, representation)
        for tag, (representation, _, _, retired, keyword) in DicomDictionary.items()
        if tag >= _FIRST and representation in _LENGTHS and not retired and keyword and keyword not in _NEEDED
    ]
    patient = [one for one in texts if one[1] == "PN" or _names_somebody(one[0])]
    yield from (patient + [one for one in texts if one not in patient])[:_MOST]


def _names_somebody(keyword: str) -> bool:
    """Whether an attribute is of those that say whose file it is (PS3.15 table E.1-1)."""
    words = ("Patient", "Accession", "Institution", "Physician", "Operator", "StudyID", "Description", "Comments")
    others = ("Address", "Telephone", "Station", "SerialNumber", "Admission", "Performing", "Requesting", "Occupation")
    return any(word in keyword for word in (*words, *others))


def _spellings(mark: str) -> Iterable[bytes]:
    plain = mark.encode()
    yield from (plain, plain.lower(), mark.encode("utf-16-le"), mark.encode("utf-16-be"), plain[::-1])
    yield from (base64.b64encode(plain).rstrip(b"=")[:-1], plain.hex().encode(), quote(mark).encode())
