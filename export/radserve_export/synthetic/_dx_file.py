"""Writes 12-bit pixels as a Digital X-Ray Image Storage - For Presentation file (PS3.3 A.26)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import DigitalXRayImageStorageForPresentation

from radserve_export.synthetic._instance import coded, instance_file, patient_study_series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BITS_STORED = 12
MAXIMUM = 2**BITS_STORED - 1

# Looked up once: pydicom's code dictionary is slow to search.
_CHEST = codes.cid4031.Chest
_VIEWS = {"PA": codes.cid4010.PosteroAnterior, "AP": codes.cid4010.AnteroPosterior}


@dataclass(frozen=True, kw_only=True)
class Radiograph:
    """A made-up chest radiograph and its made-up patient.

    Attributes:
        values: Display-ready values ``(rows, columns)`` uint16, 0 to 4095, high is bright.
        window: Window Center and Window Width (PS3.3 C.11.2) for ``values``.
        view: View Position (0018,5101).
        photometric: Photometric Interpretation to store; MONOCHROME1 stores
            ``4095 - values`` and mirrors the window, so that the picture is the same.
        spacing_mm: Imager Pixel Spacing (0018,1164), rows and columns alike.
        age_years: Patient's Age (0010,1010).
        sex: Patient's Sex (0010,0040).
        identity: What tells this file from all others; UIDs and the patient's id derive from it.
    """

    values: NDArray[np.uint16]
    window: tuple[int, int]
    view: Literal["PA", "AP"]
    photometric: Literal["MONOCHROME1", "MONOCHROME2"]
    spacing_mm: float
    age_years: int
    sex: Literal["F", "M"]
    identity: str


def dx_file(radiograph: Radiograph) -> bytes:
    """Write a radiograph as a DICOM file, Explicit VR Little Endian.

    Args:
        radiograph: What to write.

    Returns:
        The bytes of the file; the same radiograph gives the same bytes.
    """
    item = patient_study_series(
        radiograph.identity, modality="DX", shown="chest", age_years=radiograph.age_years, sex=radiograph.sex
    )
    item.PresentationIntentType = "FOR PRESENTATION"
    return instance_file(
        DigitalXRayImageStorageForPresentation, radiograph.identity, item, _dx_image(radiograph), _pixels(radiograph)
    )


def _dx_image(radiograph: Radiograph) -> Dataset:
    """DX Anatomy Imaged, Image, Detector and Positioning, Acquisition Context (PS3.3 C.8.11)."""
    item = Dataset()
    item.ImageType = ["ORIGINAL", "PRIMARY", ""]
    item.BodyPartExamined = "CHEST"
    item.ImageLaterality = "U"
    item.AnatomicRegionSequence = [coded(_CHEST)]
    item.ViewPosition = radiograph.view
    item.ViewCodeSequence = [coded(_VIEWS[radiograph.view])]
    item.ViewCodeSequence[0].ViewModifierCodeSequence = []
    item.PatientOrientation = ["L", "F"]
    item.PositionerType = "COLUMN"
    item.DetectorType = "DIRECT"
    item.ImagerPixelSpacing = [radiograph.spacing_mm] * 2
    item.AcquisitionContextSequence = []
    return item


def _pixels(radiograph: Radiograph) -> Dataset:
    """Image Pixel, the pixel part of DX Image, and VOI LUT (PS3.3 C.7.6.3, C.8.11.3, C.11.2)."""
    values, (center, width) = radiograph.values, radiograph.window
    inverse = radiograph.photometric == "MONOCHROME1"
    if inverse:
        # PS3.3 C.11.2.1.2.1 is symmetric about center - 0.5, hence 4096 and not 4095.
        values, center = MAXIMUM - values, MAXIMUM + 1 - center
    item = Dataset()
    item.Rows, item.Columns = values.shape
    item.SamplesPerPixel = 1
    item.PhotometricInterpretation = radiograph.photometric
    item.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    item.BitsAllocated = 16
    item.BitsStored = BITS_STORED
    item.HighBit = BITS_STORED - 1
    item.PixelRepresentation = 0
    item.PixelIntensityRelationship = "LOG"
    item.PixelIntensityRelationshipSign = 1 if inverse else -1
    item.RescaleIntercept = 0
    item.RescaleSlope = 1
    item.RescaleType = "US"
    item.LossyImageCompression = "00"
    item.BurnedInAnnotation = "NO"
    item.WindowCenter = center
    item.WindowWidth = width
    item.PixelData = values.astype("<u2").tobytes()
    return item
