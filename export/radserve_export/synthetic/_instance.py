"""What the DICOM files of all generated images have in common."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

# Fixed, so that the files do not change with the day, the machine or pydicom's release.
_DATE = "20260101"
_TIME = "120000"
_IMPLEMENTATION = generate_uid(entropy_srcs=["radserve synthetic data"])


def uid(kind: str, identity: str) -> UID:
    """A UID that follows from what it identifies."""
    return generate_uid(entropy_srcs=[kind, identity])


def coded(code: Code) -> Dataset:
    """One item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def patient_study_series(identity: str, *, modality: str, shown: str, age_years: int, sex: str) -> Dataset:
    """Patient, General Study, General Series, General Equipment and SOP Common (PS3.3 C.7, C.12.1).

    Args:
        identity: What tells the file from all others; UIDs and the patient's id derive from it.
        modality: Modality (0008,0060).
        shown: What is drawn, such as ``"chest"``.
        age_years: Patient's Age (0010,1010).
        sex: Patient's Sex (0010,0040).
    """
    item = Dataset()
    item.PatientName = "PHANTOM^SYNTHETIC"
    item.PatientID = f"SYNTHETIC-{identity}"
    item.PatientBirthDate = None
    item.PatientSex = sex
    item.PatientAge = f"{age_years:03d}Y"
    item.StudyInstanceUID = uid("study", identity)
    item.StudyID = "1"
    item.StudyDate = item.SeriesDate = item.AcquisitionDate = item.ContentDate = _DATE
    item.StudyTime = item.SeriesTime = item.AcquisitionTime = item.ContentTime = _TIME
    item.ReferringPhysicianName = None
    item.AccessionNumber = None
    item.StudyDescription = f"Generated {shown} phantom, not a patient"
    item.SeriesInstanceUID = uid("series", identity)
    item.SeriesNumber = 1
    item.InstanceNumber = 1
    item.Modality = modality
    item.Manufacturer = "radserve"
    item.ManufacturerModelName = f"{shown} phantom generator"
    return item


def axial_plane(identity: str, shape: tuple[int, ...], spacing_mm: tuple[float, float], thickness_mm: float) -> Dataset:
    """Frame of Reference and Image Plane of an axial slice around the origin (PS3.3 C.7.4, C.7.6.2).

    Args:
        identity: As for ``patient_study_series``.
        shape: Rows and columns.
        spacing_mm: Pixel Spacing (0028,0030), rows and columns.
        thickness_mm: Slice Thickness (0018,0050).
    """
    rows, columns = shape
    high, wide = spacing_mm
    item = Dataset()
    item.FrameOfReferenceUID = uid("frame of reference", identity)
    item.PositionReferenceIndicator = None
    item.PatientPosition = "HFS"
    item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    item.ImagePositionPatient = [round(-(columns - 1) / 2 * wide, 4), round(-(rows - 1) / 2 * high, 4), 0]
    item.PixelSpacing = [high, wide]
    item.SliceThickness = thickness_mm
    return item


def instance_file(sop_class: UID, identity: str, *modules: Dataset) -> bytes:
    """Write modules as one DICOM file, Explicit VR Little Endian.

    Args:
        sop_class: SOP Class UID (0008,0016).
        identity: As for ``patient_study_series``.
        modules: The data set's parts.

    Returns:
        The bytes of the file; the same modules give the same bytes.
    """
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid("instance", identity)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION
    meta.ImplementationVersionName = "RADSERVE_SYNTH"
    buffer = BytesIO()
    file = FileDataset(buffer, {}, file_meta=meta, preamble=b"\0" * 128)
    for module in modules:
        file.update(module)
    file.SOPClassUID = sop_class
    file.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
