"""Writes a coloured ultrasound image with burned-in text as a US Image Storage file (PS3.3 A.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UltrasoundImageStorage

from radserve_export.synthetic._instance import coded, instance_file, patient_study_series

if TYPE_CHECKING:
    from numpy.typing import NDArray

BRIGHTEST = 250  # of the picture; what lies above is for text
_TEXT_LEVEL = 255
_LEVELS = 256

_BREAST = codes.cid4030.Breast

# Three columns and five rows a letter, each row an octal digit: 2 is the middle dot.
_GLYPHS = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717", "6": "74757", "7": "71122",
    "8": "75757", "9": "75717", "A": "25755", "B": "65656", "C": "74447", "D": "65556", "E": "74647", "F": "74644",
    "G": "74557", "H": "55755", "I": "72227", "J": "11157", "K": "55655", "L": "44447", "M": "57755", "N": "65555",
    "O": "75557", "P": "75744", "Q": "75573", "R": "75655", "S": "74717", "T": "72222", "U": "55557", "V": "55552",
    "W": "55775", "X": "55255", "Y": "55222", "Z": "71247", ".": "00002", " ": "00000",
}  # fmt: skip
_DOT = 2  # pixels
_ADVANCE, _HEIGHT = 4 * _DOT, 5 * _DOT


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A made-up ultrasound image of a breast and its made-up patient.

    Attributes:
        levels: Brightness ``(rows, columns)`` uint8, 0 to 250.
        tint: Red, green and blue of the brightest level.
        text: What the device burns in at the top left, capitals and digits; empty for nothing.
        photometric: Photometric Interpretation to store; both show the same picture.
        laterality: Image Laterality (0020,0062).
        age_years: Patient's Age (0010,1010).
        identity: What tells this file from all others.
    """

    levels: NDArray[np.uint8]
    tint: tuple[int, int, int]
    text: str
    photometric: Literal["RGB", "PALETTE COLOR"]
    laterality: Literal["L", "R"]
    age_years: int
    identity: str


def us_file(scan: Scan) -> bytes:
    """Write a scan as a DICOM file, Explicit VR Little Endian.

    Args:
        scan: What to write.

    Returns:
        The bytes of the file; the same scan gives the same bytes.
    """
    common = patient_study_series(scan.identity, modality="US", shown="breast", age_years=scan.age_years, sex="F")
    return instance_file(UltrasoundImageStorage, scan.identity, common, _us_image(scan), _pixels(scan))


def _us_image(scan: Scan) -> Dataset:
    """General Image and US Image (PS3.3 C.7.6.1, C.8.5.6)."""
    item = Dataset()
    item.ImageType = ["ORIGINAL", "PRIMARY", "BREAST", "0001"]
    item.BodyPartExamined = "BREAST"
    item.AnatomicRegionSequence = [coded(_BREAST)]
    item.ImageLaterality = scan.laterality
    item.PatientOrientation = None
    item.BurnedInAnnotation = "YES" if scan.text else "NO"
    item.LossyImageCompression = "00"
    return item


def _pixels(scan: Scan) -> Dataset:
    """Image Pixel and Palette Color Lookup Table (PS3.3 C.7.6.3, C.7.9)."""
    levels = scan.levels.copy()
    _burn_in(levels, scan.text)
    ramp = np.minimum(np.arange(_LEVELS), BRIGHTEST) / BRIGHTEST
    palette = np.rint(ramp[:, np.newaxis] * np.array(scan.tint)).astype(np.uint8)
    palette[_TEXT_LEVEL] = (255, 230, 90)
    item = Dataset()
    item.Rows, item.Columns = levels.shape
    item.PhotometricInterpretation = scan.photometric
    item.BitsAllocated = item.BitsStored = 8
    item.HighBit = 7
    item.PixelRepresentation = 0
    if scan.photometric == "RGB":
        item.SamplesPerPixel = 3
        item.PlanarConfiguration = 0
        item.PixelData = palette[levels].tobytes()
        return item
    item.SamplesPerPixel = 1
    for channel, color in enumerate(("Red", "Green", "Blue")):
        setattr(item, f"{color}PaletteColorLookupTableDescriptor", [_LEVELS, 0, 16])
        # 16 bits hold 8 exactly: 255 is 65535.
        entries = (palette[:, channel].astype(np.uint16) * 257).astype("<u2")
        setattr(item, f"{color}PaletteColorLookupTableData", entries.tobytes())
    item.PixelData = levels.tobytes()
    return item


def _burn_in(levels: NDArray[np.uint8], text: str) -> None:
    """Write text at the top left, as far as it fits."""
    for place, letter in enumerate(text[: levels.shape[1] // _ADVANCE - 1]):
        rows = np.array([[int(row) >> bit & 1 for bit in (2, 1, 0)] for row in _GLYPHS[letter]], bool)
        dots = np.kron(rows, np.ones((_DOT, _DOT), bool))
        left = _DOT + place * _ADVANCE
        levels[_DOT : _DOT + _HEIGHT, left : left + dots.shape[1]][dots] = _TEXT_LEVEL
