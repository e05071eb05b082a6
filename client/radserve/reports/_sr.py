"""A result as a structured report: TID 1500 "Measurement Report" (PS3.16), one group for each finding."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import NAMESPACE_OID, uuid5

import highdicom.sr as hd
from pydicom.uid import ComputedRadiographyImageStorage, SegmentationStorage

from radserve.errors import InputError
from radserve.reports._context import LOCAL_SCHEME, MANUFACTURER, Context, Reference, new_uid
from radserve.results import Classification, Finding, GeneratedText, ImageFindings, Region, Result, Segmentation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydicom.dataset import Dataset

    from radserve.contracts import Code
    from radserve.reports._context import Source

_Group: TypeAlias = (
    hd.MeasurementsAndQualitativeEvaluations
    | hd.PlanarROIMeasurementsAndQualitativeEvaluations
    | hd.VolumetricROIMeasurementsAndQualitativeEvaluations
)
_SERIES_NUMBER = 9001
_NOT_ITS_OWN = "segmentation= is not of this result and source: give what this result's to_dicom_seg() gave"
_DIGITS = 7  # of a single-precision number
_CHINESE = re.compile("[\N{CJK UNIFIED IDEOGRAPH-4E00}-\N{CJK UNIFIED IDEOGRAPH-9FFF}]")
_NO_UNITS = hd.CodedConcept("1", "UCUM", "no units")
_PROBABILITY = hd.CodedConcept("122157", "DCM", "Probability")
_AREA = hd.CodedConcept("42798000", "SCT", "Area")
_VOLUME = hd.CodedConcept("118565006", "SCT", "Volume")  # PS3.16 CID 7472
_MM2 = hd.CodedConcept("mm2", "UCUM", "square millimeter")
_MM3 = hd.CodedConcept("mm3", "UCUM", "cubic millimeter")  # PS3.16 CID 7462
_SOURCE = hd.CodedConcept("121112", "DCM", "Source of Measurement")
# PS3.16 CID 240, Present-Absent
_PRESENT = hd.CodedConcept("52101004", "SCT", "Present")
_ABSENT = hd.CodedConcept("272519000", "SCT", "Absent")
_UNDETERMINED = hd.CodedConcept("373068000", "SCT", "Undetermined")
_LANGUAGES = {False: hd.CodedConcept("en", "RFC5646", "English"), True: hd.CodedConcept("zh", "RFC5646", "Chinese")}


def structured_report(
    result: Result, source: Source, segmentation: Dataset | None, study_instance_uid: str | None
) -> Dataset:
    """See ``radserve.reports.to_dicom_sr``."""
    context = Context.of(result, source)
    _check_study(result, context, study_instance_uid)
    if segmentation is not None:
        _check_segmentation(result, context, segmentation)
    is_chinese = isinstance(result, GeneratedText) and bool(_CHINESE.search(result.text))
    content = hd.MeasurementReport(
        observation_context=hd.ObservationContext(observer_device_context=_observer(result)),
        procedure_reported=_procedure(result, context),
        imaging_measurements=list(_groups(result, context, segmentation)),
        language_of_content_item_and_descendants=hd.LanguageOfContentItemAndDescendants(_LANGUAGES[is_chinese]),
    )
    evidence = [*context.sources, *([] if segmentation is None else [segmentation])]
    report = hd.Comprehensive3DSR(
        evidence=[_stand_in(context, each) for each in evidence],
        content=content,
        series_instance_uid=new_uid(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=new_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=result.is_complete if isinstance(result, GeneratedText) else True,
        is_final=False,
        is_verified=False,
    )
    classes = {str(each.SOPInstanceUID): each.SOPClassUID for each in evidence}
    for series in report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence:
        for item in series.ReferencedSOPSequence:
            item.ReferencedSOPClassUID = classes[str(item.ReferencedSOPInstanceUID)]
    if any(reference.is_waveform for reference in context.references):
        _add_waveforms(report, context)
    return context.finish(report, result)


def _stand_in(context: Context, dataset: Dataset) -> Dataset:
    """What highdicom asks of a data set; it knows the modules of some SOP classes alone."""
    return context.stand_in(
        SOPClassUID=ComputedRadiographyImageStorage,
        SOPInstanceUID=dataset.SOPInstanceUID,
        SeriesInstanceUID=dataset.SeriesInstanceUID,
    )


def _procedure(result: Result, context: Context) -> hd.CodedConcept:
    for item in context.patient.get("ProcedureCodeSequence") or ():
        value, scheme, meaning = (
            str(item.get(each) or "") for each in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
        )
        if value and scheme and meaning:
            return hd.CodedConcept(value, scheme, meaning)
    if isinstance(result, GeneratedText) or context.references[0].is_waveform:
        return hd.CodedConcept("NOT_STATED", LOCAL_SCHEME, "Procedure not stated")
    return hd.CodedConcept("363679005", "SCT", "Imaging procedure")


def _observer(result: Result) -> hd.ObserverContext:
    """TID 1002 and 1004: the model is the observer, the same one whenever its version answers."""
    identity = f"radserve/{result.model}/{result.version}/{result.provenance.model_sha256}"
    return hd.ObserverContext(
        observer_type=hd.CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=hd.DeviceObserverIdentifyingAttributes(
            uid=f"2.25.{uuid5(NAMESPACE_OID, identity).int}",
            name=result.model,
            manufacturer_name=MANUFACTURER,
            model_name=result.model,
            serial_number=str(result.version),
        ),
    )


def _algorithm(result: Result) -> hd.AlgorithmIdentification:
    """TID 4019."""
    told = result.provenance
    parameters = {
        "model_sha256": told.model_sha256,
        "contract_sha256": told.contract_sha256,
        "sdk_version": told.sdk_version,
        "intended_use": told.intended_use,
    }
    return hd.AlgorithmIdentification(
        name=result.model,
        version=str(result.version),
        parameters=[f"{name}={value}" for name, value in parameters.items() if value],
    )


def _groups(result: Result, context: Context, segmentation: Dataset | None) -> Iterator[_Group]:
    if isinstance(result, Classification):
        for finding in result.findings:
            yield _finding(result, context, finding)
    elif isinstance(result, Segmentation):
        for region in result.findings:
            if segmentation is None or not region.is_positive:
                yield _region(result, context, region)
            else:
                yield _segment(result, context, region, segmentation)
    elif isinstance(result, GeneratedText):
        yield _text(result)


def _carriers(result: Classification, context: Context, finding: Finding) -> list[Reference]:
    """The images that a finding rests on: of a study, those that show it, or the one that comes closest."""
    if not result.images:
        return list(context.references)
    of_label = [(_of_label(image, finding.label), image) for image in result.images]
    shown = [image for one, image in of_label if one.is_positive]
    images = shown or [max(of_label, key=lambda pair: pair[0].probability)[1]]
    by_uid = {str(reference.sop_instance_uid): reference for reference in context.references}
    return [
        by_uid[image.sop_instance_uid or ""]._replace(frame_numbers=() if number is None else (number,))
        for image in images
        for number in [image.frame_number]
    ]


def _of_label(image: ImageFindings, label: str) -> Finding:
    return next(finding for finding in image.findings if finding.label == label)


def _finding(result: Classification, context: Context, finding: Finding) -> _Group:
    presence = _PRESENT if finding.is_positive else _UNDETERMINED if finding.is_indeterminate else _ABSENT
    numbers = [_number(_PROBABILITY, finding.probability), _number(_local("THRESHOLD"), finding.threshold)]
    if finding.indeterminate is not None:
        lower, upper = finding.indeterminate
        numbers += [_number(_local("BAND_FROM"), lower), _number(_local("BAND_BELOW"), upper)]
    return _group(_common(result, finding.label, finding.code, presence, numbers), _carriers(result, context, finding))


def _region(result: Segmentation, context: Context, region: Region) -> _Group:
    presence = _PRESENT if region.is_positive else _ABSENT
    return _group(_common(result, region.label, region.code, presence, _sizes(region)), context.references)


def _common(
    result: Result, label: str, code: Code, presence: hd.CodedConcept, numbers: Sequence[hd.Measurement]
) -> dict[str, Any]:
    """What the templates of all groups have; only what is present is a Finding (121071, DCM)."""
    concept = hd.CodedConcept(code.value, code.scheme, code.meaning)
    return {
        "tracking_identifier": hd.TrackingIdentifier(identifier=label, uid=new_uid()),
        "finding_type": concept if presence == _PRESENT else None,
        "algorithm_id": _algorithm(result),
        "measurements": numbers,
        "qualitative_evaluations": [hd.QualitativeEvaluation(name=concept, value=presence)],
    }


def _group(common: dict[str, Any], sources: Sequence[Reference]) -> _Group:
    """TID 1501."""
    images = [
        hd.SourceImageForMeasurementGroup(*reference[:2], list(reference.frame_numbers) or None)
        for reference in sources
        if not reference.is_waveform
    ]
    return hd.MeasurementsAndQualitativeEvaluations(**common, source_images=images)


def _add_waveforms(report: hd.Comprehensive3DSR, context: Context) -> None:
    """What highdicom 0.28 cannot: it takes no document that refers to a waveform, though it writes such references."""
    for group in report.ContentSequence[-1].ContentSequence:
        group.ContentSequence.extend(
            hd.WaveformContentItem(_SOURCE, *reference[:2], relationship_type=hd.RelationshipTypeValues.CONTAINS)
            for reference in context.references
            if reference.is_waveform
        )


def _segment(result: Segmentation, context: Context, region: Region, segmentation: Dataset) -> _Group:
    """TID 1410 of one image, by its frame; TID 1411 of a stack, by its segment."""
    common = _common(result, region.label, region.code, _PRESENT, _sizes(region))
    tracked = segmentation.SegmentSequence[region.value - 1]
    common["tracking_identifier"] = hd.TrackingIdentifier(identifier=region.label, uid=tracked.TrackingUID)
    images = [hd.SourceImageForSegmentation(*each[:2], list(each.frame_numbers) or None) for each in context.references]
    uids = segmentation.SOPClassUID, segmentation.SOPInstanceUID
    if result.label_map.ndim > 2:  # noqa: PLR2004 - rows and columns
        segment = hd.ReferencedSegment(*uids, region.value, source_images=images)
        return hd.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **common)
    frames = [
        number
        for number, groups in enumerate(segmentation.PerFrameFunctionalGroupsSequence, start=1)
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == region.value
    ]
    frame = hd.ReferencedSegmentationFrame(*uids, frames, region.value, images[0])
    del frame[0].ReferencedSOPSequence[0].ReferencedSegmentNumber  # a frame is of one segment: PS3.3 table 10-3
    return hd.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=frame, **common)


def _text(result: GeneratedText) -> _Group:
    group = hd.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.TrackingIdentifier(identifier=result.model, uid=new_uid()),
        algorithm_id=_algorithm(result),
        measurements=[_number(_local("LOG_PROBABILITY"), result.log_probability)],
    )
    text = hd.TextContentItem(
        name=_local("GENERATED_TEXT"), value=result.text, relationship_type=hd.RelationshipTypeValues.CONTAINS
    )
    group[0].ContentSequence.append(text)
    return group


def _sizes(region: Region) -> list[hd.Measurement]:
    pixels = hd.CodedConcept("{pixels}", "UCUM", "pixels")
    numbers = [hd.Measurement(name=_local("PIXEL_COUNT"), value=region.pixel_count, unit=pixels)]
    for name, size, unit in ((_AREA, region.area_mm2, _MM2), (_VOLUME, region.volume_mm3, _MM3)):
        if size is not None:
            numbers.append(hd.Measurement(name=name, value=_rounded(size), unit=unit))
    return numbers


def _number(name: hd.CodedConcept, value: float) -> hd.Measurement:
    return hd.Measurement(name=name, value=_rounded(value), unit=_NO_UNITS)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _local(value: str) -> hd.CodedConcept:
    meanings = {
        "THRESHOLD": "Positive from this probability on",
        "BAND_FROM": "Indeterminate from this probability on",
        "BAND_BELOW": "Indeterminate below this probability",
        "PIXEL_COUNT": "Pixels of the region",
        "GENERATED_TEXT": "Generated text",
        "LOG_PROBABILITY": "Logarithm of the text's probability",
    }
    return hd.CodedConcept(value, LOCAL_SCHEME, meanings[value])


def _check_study(result: Result, context: Context, study_instance_uid: str | None) -> None:
    """Raises InputError unless the sources are of the study that the caller names."""
    if study_instance_uid is None and isinstance(result, GeneratedText):
        msg = (
            "a text does not say whose it is: name the study that it is about with study_instance_uid=,"
            " as the system says that the text came from"
        )
        raise InputError(msg)
    if study_instance_uid not in (None, context.patient.StudyInstanceUID):
        msg = "the source is not of the study that study_instance_uid= names: give a file of that study"
        raise InputError(msg)


def _check_segmentation(result: Result, context: Context, segmentation: Dataset) -> None:
    """Raises InputError unless it is the result's own, of the same study."""
    if not isinstance(result, Segmentation) or segmentation.get("SOPClassUID") != SegmentationStorage:
        msg = "segmentation= is what to_dicom_seg() of the same result gave: leave it out for other results"
        raise InputError(msg)
    same_study = all(segmentation.get(each) == context.patient.get(each) for each in ("StudyInstanceUID", "PatientID"))
    referred = {
        str(item.ReferencedSOPInstanceUID)
        for series in segmentation.get("ReferencedSeriesSequence") or ()
        for item in series.ReferencedInstanceSequence
    }
    labels = [str(segment.SegmentLabel) for segment in segmentation.SegmentSequence]
    if (
        not same_study
        or referred != {str(reference.sop_instance_uid) for reference in context.references}
        or labels != [region.label for region in result.findings]
        or _pixel_counts(segmentation) != {region.value: region.pixel_count for region in result.findings}
    ):
        raise InputError(_NOT_ITS_OWN)


def _pixel_counts(segmentation: Dataset) -> dict[int, int]:
    """By segment number; an answer of another version of the model, or to another window, has others."""
    counts = dict.fromkeys((int(segment.SegmentNumber) for segment in segmentation.SegmentSequence), 0)
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        counts[int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)] += int(frame.sum())
    return counts
