"""Writes Hounsfield units as a CT Image Storage file (PS3.3 A.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage

from radserve_export.synthetic._instance import axial_plane, coded, instance_file, patient_study_series

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.sr.coding import Code

# Stored values are 12 bits without a sign, as scanners write them: HU + 1024.
_INTERCEPT = -1024
_BITS_STORED = 12

_REGIONS: dict[str, Code] = {"ABDOMEN": codes.cid4030.Abdomen, "HEAD": codes.cid4030.Head}


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A made-up axial CT slice and its made-up patient.

    Attributes:
        hu: Hounsfield units ``(rows, columns)``, patient's right at the left; kept within -1024 to 3071.
        body_part: Body Part Examined (0018,0015).
        window: Window Center and Window Width (PS3.3 C.11.2).
        spacing_mm: Pixel Spacing (0028,0030), rows and columns.
        thickness_mm: Slice Thickness (0018,0050).
        age_years: Patient's Age (0010,1010).
        sex: Patient's Sex (0010,0040).
        identity: What tells this file from all others.
    """

    hu: NDArray[np.float32]
    body_part: Literal["ABDOMEN", "HEAD"]
    window: tuple[int, int]
    spacing_mm: tuple[float, float]
    thickness_mm: float
    age_years: int
    sex: Literal["F", "M"]
    identity: str


def ct_file(drawn: Slice) -> bytes:
    """Write a slice as a DICOM file, Explicit VR Little Endian.

    Args:
        drawn: What to write.

    Returns:
        The bytes of the file; the same slice gives the same bytes.
    """
    shown = drawn.body_part.lower()
    common = patient_study_series(drawn.identity, modality="CT", shown=shown, age_years=drawn.age_years, sex=drawn.sex)
    return instance_file(CTImageStorage, drawn.identity, common, _plane(drawn), _pixels(drawn))


def _plane(drawn: Slice) -> Dataset:
    """Where the slice lies, and how CT Image says it was acquired (PS3.3 C.8.2.1)."""
    item = axial_plane(drawn.identity, drawn.hu.shape, drawn.spacing_mm, drawn.thickness_mm)
    item.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    item.BodyPartExamined = drawn.body_part
    item.AnatomicRegionSequence = [coded(_REGIONS[drawn.body_part])]
    item.AcquisitionNumber = 1
    item.KVP = 120
    return item


def _pixels(drawn: Slice) -> Dataset:
    """Image Pixel, Modality LUT and VOI LUT (PS3.3 C.7.6.3, C.11.1, C.11.2)."""
    stored = np.clip(np.rint(drawn.hu) - _INTERCEPT, 0, 2**_BITS_STORED - 1).astype("<u2")
    item = Dataset()
    item.Rows, item.Columns = stored.shape
    item.SamplesPerPixel = 1
    item.PhotometricInterpretation = "MONOCHROME2"
    item.BitsAllocated = 16
    item.BitsStored = _BITS_STORED
    item.HighBit = _BITS_STORED - 1
    item.PixelRepresentation = 0
    item.RescaleIntercept = _INTERCEPT
    item.RescaleSlope = 1
    item.RescaleType = "HU"
    item.LossyImageCompression = "00"
    item.BurnedInAnnotation = "NO"
    item.WindowCenter, item.WindowWidth = drawn.window
    item.PixelData = stored.tobytes()
    return item
