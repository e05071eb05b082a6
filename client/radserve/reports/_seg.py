"""A label map as a Segmentation (PS3.3 A.51): binary, one segment for each label."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import highdicom as hd
import highdicom.seg
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import format_number_as_ds

from radserve.errors import InputError
from radserve.reports._context import LOCAL_SCHEME, MANUFACTURER, Context, new_uid

if TYPE_CHECKING:
    from pydicom.uid import UID

    from radserve.reports._context import Source
    from radserve.results import Region, Segmentation

_SERIES_NUMBER = 9002
_MACROS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
}


def segmentation_image(result: Segmentation, source: Source) -> Dataset:
    """See ``radserve.reports.to_dicom_seg``."""
    context = Context.of(result, source)
    images = _images(result, context)
    rows, columns = result.label_map.shape[-2:]
    for dataset, _ in images:
        if (dataset.get("Rows"), dataset.get("Columns")) != (rows, columns):
            msg = "the label map is not of the source's size: give the files as they were predicted"
            raise InputError(msg)
    spacing_mm = result.geometry.slice_spacing_mm if result.geometry else None
    planes = [_plane(dataset, number, spacing_mm) for dataset, number in images]
    has_geometry = all(planes)
    if has_geometry:  # open_series lets orientations differ by how they are rounded, highdicom does not
        planes = [{**plane, "ImageOrientationPatient": planes[0]["ImageOrientationPatient"]} for plane in planes]
    else:
        planes = _placeless(len(planes))
    stand_ins = [_stand_in(context, plane, rows, columns) for plane in planes]
    report = highdicom.seg.Segmentation(
        source_images=stand_ins,
        pixel_array=result.label_map.reshape(-1, rows, columns),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(result, region) for region in result.findings],
        series_instance_uid=new_uid(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=new_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=result.model,
        software_versions=str(result.version),
        device_serial_number=str(result.version),
        content_label="AI_RESULT",
        omit_empty_frames=bool(result.label_map.any()),
    )
    if not has_geometry:
        _unplace(report, [str(stand_in.SOPInstanceUID) for stand_in in stand_ins])
        report.PatientOrientation = images[0][0].get("PatientOrientation") or ""
    _refer(report, {str(stand_in.SOPInstanceUID): image for stand_in, image in zip(stand_ins, images, strict=True)})
    _list_once(report, context)
    return context.finish(report, result)


def _images(result: Segmentation, context: Context) -> list[tuple[Dataset, int | None]]:
    """Data set and frame number of each image of the label map.

    Raises:
        InputError: They are not as many.
    """
    count = result.label_map.shape[0] if result.label_map.ndim == 3 else 1  # noqa: PLR2004 - a stack
    numbers = result.provenance.frame_numbers
    images: list[tuple[Dataset, int | None]] = [(dataset, None) for dataset in context.sources]
    if len(images) == 1 and (numbers or int(images[0][0].get("NumberOfFrames") or 1) > 1):
        images = [(images[0][0], number) for number in numbers]
    if len(images) != count:
        msg = "the label map is not of as many images as the source holds: give the files as they were predicted"
        raise InputError(msg)
    return images


def _plane(dataset: Dataset, number: int | None, spacing_mm: float | None) -> dict[str, object]:
    """Image Plane and Frame of Reference (PS3.3 C.7.6.2, C.7.4.1); empty unless all of it is there.

    A source may leave Slice Thickness out, highdicom may not: the distance between slices stands in.
    """
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    groups = [*frames[(number or 1) - 1 : number or 1], *(dataset.get("SharedFunctionalGroupsSequence") or ())]
    found: dict[str, object] = {"FrameOfReferenceUID": dataset.get("FrameOfReferenceUID")}
    for keyword, macro in _MACROS.items():
        items = [group[macro].value[0] for group in groups if group.get(macro)]
        holder = next((item for item in items if keyword in item), None)
        if holder is None and number is None:
            holder = dataset
        found[keyword] = None if holder is None else holder.get(keyword)
    if found["SliceThickness"] in (None, "") and spacing_mm is not None:
        found["SliceThickness"] = format_number_as_ds(spacing_mm)
    return found if all(value not in (None, "") for value in found.values()) else {}


def _stand_in(context: Context, plane: dict[str, object], rows: int, columns: int) -> Dataset:
    """A single-frame image of the same place: highdicom takes no frames of older multi-frame classes."""
    return context.stand_in(
        SOPClassUID=CTImageStorage,
        SOPInstanceUID=new_uid(),
        SeriesInstanceUID=context.sources[0].SeriesInstanceUID,
        Modality="OT",
        Rows=rows,
        Columns=columns,
        PositionReferenceIndicator="",
        **plane,
    )


def _placeless(count: int) -> list[dict[str, object]]:
    """Planes one behind the other, for highdicom alone: it takes no stack that has no place."""
    common = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1], "SliceThickness": 1}
    frame_of_reference = new_uid()
    return [
        {**common, "FrameOfReferenceUID": frame_of_reference, "ImagePositionPatient": [0, 0, index]}
        for index in range(count)
    ]


def _unplace(report: Dataset, order: list[str]) -> None:
    """Take the planes out again; frames are numbered in their stack instead (PS3.3 C.7.6.16.2.2)."""
    del report.FrameOfReferenceUID, report.PositionReferenceIndicator
    shared = report.SharedFunctionalGroupsSequence[0]
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        shared.pop(keyword, None)
    position = report.DimensionIndexSequence[1]
    position.DimensionIndexPointer = tag_for_keyword("InStackPositionNumber")
    position.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
    position.DimensionDescriptionLabel = "In-Stack Position Number"
    for groups in report.PerFrameFunctionalGroupsSequence:
        for keyword in ("PlanePositionSequence", "PixelMeasuresSequence", "PlaneOrientationSequence"):
            groups.pop(keyword, None)
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        (frame,) = groups.FrameContentSequence
        frame.StackID = "1"
        frame.InStackPositionNumber = 1 + order.index(str(source.ReferencedSOPInstanceUID))
        segment, _ = frame.DimensionIndexValues
        frame.DimensionIndexValues = [segment, frame.InStackPositionNumber]


def _describe(result: Segmentation, region: Region) -> highdicom.seg.SegmentDescription:
    """Segment Description (PS3.3 C.8.20.2); the segment's number is the region's value."""
    category = region.category
    return highdicom.seg.SegmentDescription(
        segment_number=region.value,
        segment_label=region.label,
        segmented_property_category=hd.sr.CodedConcept("NOT_STATED", LOCAL_SCHEME, "Category not stated")
        if category is None
        else hd.sr.CodedConcept(category.value, category.scheme, category.meaning),
        segmented_property_type=hd.sr.CodedConcept(region.code.value, region.code.scheme, region.code.meaning),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=result.model,
            version=str(result.version),
            family=hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
            parameters={
                "model_sha256": result.provenance.model_sha256,
                "contract_sha256": result.provenance.contract_sha256,
            },
        ),
        tracking_uid=new_uid(),
        tracking_id=region.label,
    )


def _refer(dataset: Dataset, images: dict[str, tuple[Dataset, int | None]]) -> None:
    """Let every reference to a stand-in be one to its image."""
    for element in dataset:
        if element.VR != "SQ":
            continue
        for item in element.value:
            image = images.get(str(item.get("ReferencedSOPInstanceUID")))
            if image is not None:
                source, number = image
                item.ReferencedSOPClassUID = cast("UID", source.SOPClassUID)
                item.ReferencedSOPInstanceUID = cast("UID", source.SOPInstanceUID)
                if number is not None and element.keyword == "SourceImageSequence":
                    item.ReferencedFrameNumber = number
            _refer(item, images)


def _list_once(report: Dataset, context: Context) -> None:
    """Common Instance Reference (PS3.3 C.12.2): each source once, by its series."""
    report.ReferencedSeriesSequence = []
    for uid in dict.fromkeys(source.SeriesInstanceUID for source in context.sources):
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedInstanceSequence = []
        for source in context.sources:
            if source.SeriesInstanceUID == uid:
                item = Dataset()
                item.ReferencedSOPClassUID = source.SOPClassUID
                item.ReferencedSOPInstanceUID = source.SOPInstanceUID
                series.ReferencedInstanceSequence.append(item)
        report.ReferencedSeriesSequence.append(series)
