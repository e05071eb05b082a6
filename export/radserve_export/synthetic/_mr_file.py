"""Writes MR magnitudes as an MR Image Storage file (PS3.3 A.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import MRImageStorage

from radserve_export.synthetic._instance import axial_plane, coded, instance_file, patient_study_series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BITS_STORED = 12
MAXIMUM = 2**BITS_STORED - 1

_BRAIN = codes.cid4030.Brain


@dataclass(frozen=True, kw_only=True)
class Section:
    """A made-up axial T2-FLAIR section through the brain and its made-up patient.

    Attributes:
        values: Magnitudes ``(rows, columns)`` uint16, 0 to 4095, in no unit.
        spacing_mm: Pixel Spacing (0028,0030), rows and columns alike.
        thickness_mm: Slice Thickness (0018,0050).
        age_years: Patient's Age (0010,1010).
        sex: Patient's Sex (0010,0040).
        identity: What tells this file from all others.
    """

    values: NDArray[np.uint16]
    spacing_mm: float
    thickness_mm: float
    age_years: int
    sex: Literal["F", "M"]
    identity: str


def mr_file(section: Section) -> bytes:
    """Write a section as a DICOM file, Explicit VR Little Endian.

    Args:
        section: What to write.

    Returns:
        The bytes of the file; the same section gives the same bytes.
    """
    common = patient_study_series(
        section.identity, modality="MR", shown="brain", age_years=section.age_years, sex=section.sex
    )
    spacing = (section.spacing_mm, section.spacing_mm)
    plane = axial_plane(section.identity, section.values.shape, spacing, section.thickness_mm)
    return instance_file(MRImageStorage, section.identity, common, plane, _acquisition(), _pixels(section))


def _acquisition() -> Dataset:
    """MR Image (PS3.3 C.8.3.1): an inversion recovery that darkens fluid."""
    item = Dataset()
    item.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    item.BodyPartExamined = "BRAIN"
    item.AnatomicRegionSequence = [coded(_BRAIN)]
    item.ScanningSequence = "IR"
    item.SequenceVariant = "SK"
    item.ScanOptions = None
    item.MRAcquisitionType = "2D"
    item.RepetitionTime = 9000
    item.EchoTime = 120
    item.InversionTime = 2500
    item.EchoTrainLength = 16
    item.MagneticFieldStrength = 1.5
    return item


def _pixels(section: Section) -> Dataset:
    """Image Pixel (PS3.3 C.7.6.3): MR has neither rescale nor a window that files could be compared by."""
    item = Dataset()
    item.Rows, item.Columns = section.values.shape
    item.SamplesPerPixel = 1
    item.PhotometricInterpretation = "MONOCHROME2"
    item.BitsAllocated = 16
    item.BitsStored = BITS_STORED
    item.HighBit = BITS_STORED - 1
    item.PixelRepresentation = 0
    item.LossyImageCompression = "00"
    item.BurnedInAnnotation = "NO"
    item.PixelData = section.values.astype("<u2").tobytes()
    return item
