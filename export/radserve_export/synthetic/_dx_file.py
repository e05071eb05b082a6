"""Writes 12-bit pixels as a Digital X-Ray Image Storage - For Presentation file (PS3.3 A.26)."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.sr.coding import Code

BITS_STORED = 12
MAXIMUM = 2**BITS_STORED - 1

# Fixed, so that the files do not change with the day, the machine or pydicom's release.
_DATE = "20260101"
_TIME = "120000"
_IMPLEMENTATION = generate_uid(entropy_srcs=["radserve synthetic data"])

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
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = _uid("instance", radiograph.identity)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION
    meta.ImplementationVersionName = "RADSERVE_SYNTH"
    buffer = BytesIO()
    file = FileDataset(buffer, {}, file_meta=meta, preamble=b"\0" * 128)
    for module in (_patient_and_study(radiograph), _dx_image(radiograph), _pixels(radiograph)):
        file.update(module)
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _uid(kind: str, identity: str) -> UID:
    return generate_uid(entropy_srcs=[kind, identity])


def _patient_and_study(radiograph: Radiograph) -> Dataset:
    """Patient, General Study, General Series, DX Series and General Equipment (PS3.3 C.7, C.8.11.1)."""
    identity = radiograph.identity
    item = Dataset()
    item.PatientName = "PHANTOM^SYNTHETIC"
    item.PatientID = f"SYNTHETIC-{identity}"
    item.PatientBirthDate = None
    item.PatientSex = radiograph.sex
    item.PatientAge = f"{radiograph.age_years:03d}Y"
    item.StudyInstanceUID = _uid("study", identity)
    item.StudyID = "1"
    item.StudyDate = item.SeriesDate = item.AcquisitionDate = item.ContentDate = _DATE
    item.StudyTime = item.SeriesTime = item.AcquisitionTime = item.ContentTime = _TIME
    item.ReferringPhysicianName = None
    item.AccessionNumber = None
    item.StudyDescription = "Generated chest phantom, not a patient"
    item.SeriesInstanceUID = _uid("series", identity)
    item.SeriesNumber = 1
    item.Modality = "DX"
    item.PresentationIntentType = "FOR PRESENTATION"
    item.Manufacturer = "radserve"
    item.ManufacturerModelName = "chest phantom generator"
    return item


def _dx_image(radiograph: Radiograph) -> Dataset:
    """DX Anatomy Imaged, Image, Detector and Positioning, Acquisition Context, SOP Common (PS3.3 C.8.11, C.12.1)."""
    item = Dataset()
    item.SOPClassUID = DigitalXRayImageStorageForPresentation
    item.SOPInstanceUID = _uid("instance", radiograph.identity)
    item.InstanceNumber = 1
    item.ImageType = ["ORIGINAL", "PRIMARY", ""]
    item.BodyPartExamined = "CHEST"
    item.ImageLaterality = "U"
    item.AnatomicRegionSequence = [_coded(_CHEST)]
    item.ViewPosition = radiograph.view
    item.ViewCodeSequence = [_coded(_VIEWS[radiograph.view])]
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


def _coded(code: Code) -> Dataset:
    """One item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item
