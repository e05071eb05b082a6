"""What tells the images of a series apart, or that they are not one: read without touching their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from radserve.dicom._attributes import functional_group, numbers, positive, text, texts
from radserve.dicom._geometry import image_plane
from radserve.errors import DecodeError, InconsistentSeriesError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from radserve.sources import Geometry

MAX_IMAGES = 4096
_SHARED = (
    *("StudyInstanceUID", "PatientID", "Modality", "SOPClassUID", "FrameOfReferenceUID"),
    *("PhotometricInterpretation", "RescaleType", "Units"),
)
_SIZE = ("Rows", "Columns", "SamplesPerPixel")


@dataclass(frozen=True, kw_only=True, repr=False)
class Header:
    """One image: a file, or a frame of one.

    Attributes:
        frame: Which frame of its file, counted from 0; None where that has only one.
        series: Series Instance UID; None where the file has none.
        instance: SOP Instance UID; None where the file has none.
        number: Instance Number, by which images without a place are ordered.
        acquisition: Acquisition Number, or Frame Acquisition Number; empty where there is none.
        shared: Attributes that all images of a series have in common, by keyword.
        size: As ``shared``, of images that lie in one stack.
        plane: Where it lies in the patient; None where the file does not say it.
        is_localizer: Image Type (0008,0008) says that it shows where others lie.
    """

    frame: int | None
    series: str | None
    instance: str | None
    number: float
    acquisition: tuple[float, ...]
    shared: dict[str, str | None]
    size: dict[str, tuple[float, ...]]
    plane: Geometry | None
    is_localizer: bool


def read_headers(dataset: Dataset) -> tuple[Header, ...]:
    """One header for each frame.

    Raises:
        DecodeError: An attribute breaks the standard, or there are too many frames.
        InconsistentSeriesError: It is a part of a larger file.
    """
    count = positive(dataset, "NumberOfFrames", default=1)
    if count > MAX_IMAGES:
        msg = f"the file holds more than {MAX_IMAGES} frames, the most this SDK reads as one study"
        raise DecodeError(msg)
    if text(dataset, "SOPInstanceUIDOfConcatenationSource"):
        msg = "the file is a part of a concatenation (PS3.3 C.7.6.16.2.2): give the file that it is a part of"
        raise InconsistentSeriesError(msg)
    number = numbers(dataset, "InstanceNumber")
    shared = {keyword: text(dataset, keyword) for keyword in _SHARED}
    size = {keyword: numbers(dataset, keyword) for keyword in _SIZE}
    return tuple(
        Header(
            frame=index if count > 1 else None,
            series=text(dataset, "SeriesInstanceUID"),
            instance=text(dataset, "SOPInstanceUID"),
            number=number[0] if number else 0.0,
            acquisition=_acquisition(dataset, index),
            shared=shared,
            size=size,
            plane=image_plane(dataset, index),
            is_localizer="LOCALIZER" in texts(dataset, "ImageType"),
        )
        for index in range(count)
    )


def _acquisition(dataset: Dataset, index: int) -> tuple[float, ...]:
    content = functional_group(dataset, index, "FrameContentSequence")
    return numbers(content, "FrameAcquisitionNumber") or numbers(dataset, "AcquisitionNumber")
