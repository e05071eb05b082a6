"""Results as DICOM objects and FHIR resources that go back to the study's archive.

Every DICOM object keeps the source's patient and study modules and its character set
(UTF-8 where that cannot hold what the report says), says that the result is an AI's and
not reviewed, and is written only if the result was made of the source that is given.
The methods of a result, such as ``result.to_dicom_sr(source)``, call these functions.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from radserve.dicom import DicomSource
from radserve.dicom._guard import _filter, guarded
from radserve.errors import MissingExtraError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset as Dataset  # not in __all__: help() is to show what is our own

    from radserve.reports._context import Source
    from radserve.results import Classification, Result, Segmentation

__all__ = ["DicomSource", "to_dicom_seg", "to_dicom_sr", "to_fhir", "to_secondary_capture"]


def _require(library: str, what: str) -> None:
    try:
        import_module(library)
    except ImportError as error:
        extra = "reports"
        raise MissingExtraError(extra, what) from error
    for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == library]:
        logging.getLogger(name).addFilter(_filter)  # its records quote the sources' UIDs


@guarded
def to_dicom_sr(
    result: Result, source: Source, *, segmentation: Dataset | None = None, study_instance_uid: str | None = None
) -> Dataset:
    """A result as a Comprehensive 3D SR: TID 1500, with TID 4019 and a device observer (PS3.16), UNVERIFIED.

    Each label has a group, whose qualitative evaluation says by the label's code that it is
    Present, Absent or Undetermined (CID 240). Only a group of what is present also names it
    as its Finding (121071, DCM), so that no list of findings holds a negative.

    Args:
        result: Any result.
        source: The DICOM file (path, content or data set), files or folder that the result
            was made of, all of them. Of a generated text, a file of the study that it is about.
        segmentation: What ``to_dicom_seg`` made of the same result, to refer to its segments.
        study_instance_uid: Study Instance UID (0020,000D) that the source must have. A
            generated text needs it: nothing in it says whose it is, so nobody but the
            caller can know. Take it from where the text came from, not from the source.

    Returns:
        A new instance in a new series of the source's study; ``save_as`` writes it.

    Raises:
        MissingExtraError: The extra ``reports`` is not installed.
        InputError: The result was made of something else, or of more than is given; the
            sources are of two studies, or of another than the one named; or none is named
            for a generated text.
        DicomError: A source cannot be read, or does not say to which study it belongs.
    """
    _require("highdicom", "to_dicom_sr()")
    from radserve.reports._sr import structured_report  # noqa: PLC0415 - needs the extra

    return structured_report(result, source, segmentation, study_instance_uid)


@guarded
def to_dicom_seg(result: Segmentation, source: Source) -> Dataset:
    """A label map as a Segmentation of type BINARY (PS3.3 A.51), one segment for each label.

    Segment numbers are the regions' values; a label that is nowhere has a segment without
    frames. Where the sources give position, orientation, spacing, slice thickness and frame
    of reference, the frames have these, too (the orientation is the first image's, and the
    distance between slices stands in for a slice thickness that is not told); else they are tied to
    the source's pixels alone.

    Args:
        result: A segmentation.
        source: The DICOM file, files or folder that it was made of, all of them.

    Raises:
        MissingExtraError: The extra ``reports`` is not installed.
        InputError: The result was made of something else, or of more than is given.
        DicomError: A source cannot be read, or does not say to which study it belongs.
    """
    _require("highdicom", "to_dicom_seg()")
    from radserve.reports._seg import segmentation_image  # noqa: PLC0415 - needs the extra

    return segmentation_image(result, source)


@guarded
def to_secondary_capture(result: Classification | Segmentation, source: DicomSource) -> Dataset:
    """The picture with the evidence map or label map over it, as a Secondary Capture (PS3.3 A.8.1), RGB.

    "AI result, not reviewed", the model and what it found stand in a band above the
    picture, which hides none of it. The picture is shown by the file's first window. One of
    less than 512 columns is enlarged; Pixel Aspect Ratio is the source's. Of a file of
    several frames, the one that shows most is taken. A study's evidence map is drawn over
    the image that it is of,
    ``result.images[result.evidence.image]``; the study's other files are shown without it.
    Text that identifies the patient is neither added nor removed: Burned In Annotation is
    the source's.

    Args:
        result: A classification of an image, or a segmentation.
        source: The DICOM file that it was made of; of several, one of them.

    Raises:
        InputError: The result was made of something else.
        DicomError: The source cannot be decoded, or does not say to which study it belongs.
    """
    from radserve.reports._sc import secondary_capture  # noqa: PLC0415 - decodes, which few need

    return secondary_capture(result, source)


def to_fhir(result: Result, *, subject: str | None = None) -> dict[str, Any]:
    """A result as a FHIR R4 DiagnosticReport, status preliminary, with one contained Observation for each finding.

    Of images its code is LOINC 18748-4 (PS3.16 CID 7000, Diagnostic Imaging Report). Of
    waveforms and texts it is text alone: no contract says which examination they are of.

    Args:
        result: Any result.
        subject: Reference to the patient, such as ``"Patient/123"``: the result does not know it.

    Returns:
        Plain values, ready for ``json.dumps``; validated against R4's structure.

    Raises:
        MissingExtraError: The extra ``reports`` is not installed.
        InputError: A label or code breaks FHIR's rules for text.
    """
    _require("fhir.resources", "to_fhir()")
    from radserve.reports._fhir import diagnostic_report  # noqa: PLC0415 - needs the extra

    return diagnostic_report(result, subject)
