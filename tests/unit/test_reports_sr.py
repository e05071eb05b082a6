"""Structured reports: what they say, that validators accept them, and that no other study gets one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import UltrasoundMultiFrameImageStorage
from support.answers import (
    LESION,
    LIVER,
    NORMAL,
    PNEUMOTHORAX,
    classification,
    content,
    drawn,
    finding,
    generated,
    generated_text,
    segmentation,
)
from support.validators import dciodvfy_errors, dsrdump, errors_of

from radserve import ImageFindings

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

SOURCES = ("chest_xray", "ct_lesion", "brain_mri", "breast_ultrasound", "ecg_rhythm")
IMAGING_MEASUREMENTS = "126010"
PRESENT, ABSENT, UNDETERMINED = "52101004", "272519000", "373068000"  # PS3.16 CID 240


def again(report: Dataset, folder: Path) -> Dataset:
    """As whoever receives it reads it."""
    path = folder / "sr.dcm"
    report.save_as(path, enforce_file_format=True)
    return pydicom.dcmread(path)


def groups(report: Dataset) -> list[Dataset]:
    (container,) = [item for item in report.ContentSequence if name_of(item) == IMAGING_MEASUREMENTS]
    return list(container.ContentSequence)


def name_of(item: Dataset) -> str:
    (concept,) = item.ConceptNameCodeSequence
    return str(concept.CodeValue)


def said(group: Dataset) -> dict[str, Any]:
    """Concept to value of a group; the last of each concept."""
    values: dict[str, Any] = {}
    for item in group.ContentSequence:
        kind = item.ValueType
        if kind == "NUM":
            values[name_of(item)] = float(item.MeasuredValueSequence[0].NumericValue)
        elif kind == "CODE":
            values[name_of(item)] = str(item.ConceptCodeSequence[0].CodeValue)
        elif kind in ("IMAGE", "WAVEFORM"):
            values[name_of(item)] = item.ReferencedSOPSequence[0]
        else:
            values[name_of(item)] = item.get("TextValue") or item.get("UID")
    return values


@pytest.mark.parametrize("name", SOURCES)
def test_validators_accept_the_report_of_each_kind_of_source(name: str, tmp_path: Path) -> None:
    file = generated(name)
    read = again(classification(file).to_dicom_sr(content(file)), tmp_path)
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []
    assert "Comprehensive 3D SR Document" in dsrdump(tmp_path / "sr.dcm")
    (series,) = read.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    (evidence,) = series.ReferencedSOPSequence
    assert (evidence.ReferencedSOPClassUID, evidence.ReferencedSOPInstanceUID) == (
        file.SOPClassUID,
        file.SOPInstanceUID,
    )
    assert series.SeriesInstanceUID == file.SeriesInstanceUID
    source = said(groups(read)[0])["121112"]
    assert (source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID) == (file.SOPClassUID, file.SOPInstanceUID)


def test_each_finding_is_told_with_code_probability_threshold_and_presence(tmp_path: Path) -> None:
    file = generated("chest_xray")
    banded = finding("normal", 0.45, is_indeterminate=True, indeterminate=(0.4, 0.6))
    read = again(classification(file, findings=(finding(), banded)).to_dicom_sr(file), tmp_path)
    first, second = map(said, groups(read))
    assert first["121071"] == PNEUMOTHORAX.value
    assert (first["122157"], first["THRESHOLD"], first[PNEUMOTHORAX.value]) == (0.9375, 0.5, PRESENT)
    assert (second["122157"], second["BAND_FROM"], second["BAND_BELOW"]) == (0.45, 0.4, 0.6)
    assert second[NORMAL.value] == UNDETERMINED


def test_who_lists_findings_is_told_of_none_that_is_not_present(tmp_path: Path) -> None:
    file = generated("chest_xray")
    banded = finding("normal", 0.45, is_indeterminate=True, indeterminate=(0.4, 0.6))
    read = again(classification(file, findings=(finding(probability=0.1), banded)).to_dicom_sr(file), tmp_path)
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []
    assert "Finding" not in dsrdump(tmp_path / "sr.dcm")
    negative, undetermined = map(said, groups(read))
    assert (negative["112039"], negative[PNEUMOTHORAX.value]) == ("pneumothorax", ABSENT)
    assert undetermined[NORMAL.value] == UNDETERMINED
    content = hd.sr.srread(tmp_path / "sr.dcm").content
    assert isinstance(content, hd.sr.MeasurementReport)
    assert [group.finding_type for group in content.get_image_measurement_groups()] == [None, None]


def test_it_is_unverified_preliminary_and_by_a_device_that_is_the_model(tmp_path: Path) -> None:
    file = generated("chest_xray")
    read = again(classification(file).to_dicom_sr(file), tmp_path)
    assert (read.VerificationFlag, read.PreliminaryFlag, read.CompletionFlag) == (
        "UNVERIFIED",
        "PRELIMINARY",
        "COMPLETE",
    )
    assert read.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    context = {name_of(item): item for item in read.ContentSequence}
    assert context["121005"].ConceptCodeSequence[0].CodeMeaning == "Device"
    assert context["121013"].TextValue == "chest"
    same = again(classification(file).to_dicom_sr(file), tmp_path)
    newer = again(classification(file, version=4).to_dicom_sr(file), tmp_path)
    observers = [{name_of(item): item for item in each.ContentSequence}["121012"].UID for each in (read, same, newer)]
    assert observers[0] == observers[1] != observers[2]
    assert len({read.SOPInstanceUID, same.SOPInstanceUID, newer.SOPInstanceUID}) == 3
    assert "AI result, not reviewed" in read.SeriesDescription
    (equipment,) = read.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


def test_the_algorithm_is_identified_with_its_hashes(tmp_path: Path) -> None:
    file = generated("chest_xray")
    (group, _) = groups(again(classification(file).to_dicom_sr(file), tmp_path))
    assert (said(group)["111001"], said(group)["111003"]) == ("chest", "3")
    parameters = [item.TextValue for item in group.ContentSequence if name_of(item) == "111002"]
    assert f"model_sha256={'0' * 64}" in parameters
    assert f"contract_sha256={'1' * 64}" in parameters
    assert "intended_use=Tests only" in parameters


def test_the_patient_and_study_modules_are_the_sources(tmp_path: Path) -> None:
    changed = {
        "PatientName": "Wang^XiaoDong",
        "PatientComments": "Comment",
        "PatientBirthTime": "120000",
        "IssuerOfPatientID": "HOSPITAL",
        "PatientSize": "1.7",
        "AdditionalPatientHistory": "History",
        "StudyDescription": "Study",
        "AccessionNumber": "A1",
        "ClinicalTrialSubjectID": None,
        "StudyID": "7",
        "InstitutionName": "Not of these modules",
        "TimezoneOffsetFromUTC": "+0800",
    }
    file = generated("ct_lesion", **changed)
    answer = segmentation(drawn(file.Rows, file.Columns), file)
    for report in (answer.to_dicom_sr(file), answer.to_dicom_seg(file), answer.to_secondary_capture(file)):
        read = again(report, tmp_path)
        for keyword in changed:
            if keyword not in ("ClinicalTrialSubjectID", "InstitutionName"):
                assert read[keyword].value == file[keyword].value, keyword
        assert read.StudyInstanceUID == file.StudyInstanceUID
        assert read.SeriesInstanceUID != file.SeriesInstanceUID
        assert "InstitutionName" not in read
        assert dciodvfy_errors(tmp_path / "sr.dcm") == []


def test_private_attributes_stay_behind(tmp_path: Path) -> None:
    file = generated("ct_lesion")
    file.private_block(0x0011, "SECRET", create=True).add_new(1, "LO", "private")
    answer = segmentation(drawn(file.Rows, file.Columns), file)
    for report in (answer.to_dicom_sr(file), answer.to_dicom_seg(file), answer.to_secondary_capture(file)):
        assert not [element for element in again(report, tmp_path) if element.tag.is_private]


@pytest.mark.parametrize(
    "broken",
    ["VerificationFlag", "StudyInstanceUID", "Modality", "ValueType", "CurrentRequestedProcedureEvidenceSequence"],
)
def test_dciodvfy_finds_what_is_broken_in_a_report(broken: str, tmp_path: Path) -> None:
    file = generated("chest_xray")
    report = classification(file).to_dicom_sr(file)
    assert errors_of(report, tmp_path) == []
    del report[broken]
    assert errors_of(report, tmp_path)


def test_dsrdump_finds_what_dciodvfy_does_not(tmp_path: Path) -> None:
    file = generated("chest_xray")
    report = classification(file).to_dicom_sr(file)
    number = next(item for item in groups(report)[0].ContentSequence if item.ValueType == "NUM")
    del number.ConceptNameCodeSequence
    path = tmp_path / "sr.dcm"
    report.save_as(path, enforce_file_format=True)
    with pytest.raises(AssertionError):
        dsrdump(path)


def test_highdicom_reads_the_report(tmp_path: Path) -> None:
    file = generated("ct_lesion")
    answer = segmentation(drawn(file.Rows, file.Columns), file)
    seg = answer.to_dicom_seg(file)
    again(answer.to_dicom_sr(file, segmentation=seg), tmp_path)
    read = hd.sr.srread(tmp_path / "sr.dcm").content
    assert isinstance(read, hd.sr.MeasurementReport)
    found = read.get_planar_roi_measurement_groups()
    assert [group.finding_type for group in found] == [
        hd.sr.CodedConcept(*code) for code in (("10200004", "SCT", "Liver"), ("52988006", "SCT", "Lesion"))
    ]


def test_the_report_refers_to_the_frames_of_its_segmentation(tmp_path: Path) -> None:
    file = generated("ct_lesion")
    answer = segmentation(drawn(file.Rows, file.Columns), file)
    seg = answer.to_dicom_seg(file)
    read = again(answer.to_dicom_sr(file, segmentation=seg), tmp_path)
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []
    assert "SG image" in dsrdump(tmp_path / "sr.dcm")
    for value, group in enumerate(groups(read), start=1):
        values = said(group)
        assert values["121214"].ReferencedSOPInstanceUID == seg.SOPInstanceUID
        frame = seg.PerFrameFunctionalGroupsSequence[values["121214"].ReferencedFrameNumber - 1]
        assert frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == value
        assert values["112040"] == seg.SegmentSequence[value - 1].TrackingUID
        assert values["121233"].ReferencedSOPInstanceUID == file.SOPInstanceUID
        region = answer.findings[value - 1]
        assert (values["PIXEL_COUNT"], values["42798000"]) == (region.pixel_count, region.area_mm2)
    instances = {
        item.ReferencedSOPInstanceUID
        for series in read.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert instances == {file.SOPInstanceUID, seg.SOPInstanceUID}


def test_regions_without_a_segmentation_or_without_pixels_are_told_all_the_same(tmp_path: Path) -> None:
    file = generated("ct_lesion")
    label_map = np.where(drawn(file.Rows, file.Columns) == 1, 1, 0).astype(np.uint8)
    answer = segmentation(label_map, file)
    for seg in (None, answer.to_dicom_seg(file)):
        read = again(answer.to_dicom_sr(file, segmentation=seg), tmp_path)
        assert dciodvfy_errors(tmp_path / "sr.dcm") == []
        liver, lesion = map(said, groups(read))
        assert (liver["121071"], liver[LIVER.value]) == (LIVER.value, PRESENT)
        assert (lesion.get("121071"), lesion[LESION.value]) == (None, ABSENT)


def test_of_a_study_each_finding_refers_to_the_images_that_show_it(tmp_path: Path) -> None:
    files = [generated("ct_hemorrhage", SOPInstanceUID=f"2.25.{number}") for number in (1, 2, 3)]
    images = tuple(
        ImageFindings(
            sop_instance_uid=str(file.SOPInstanceUID),
            frame_number=None,
            findings=(finding(probability=shown), finding("normal", other)),
        )
        for file, shown, other in zip(files, (0.9, 0.2, 0.7), (0.1, 0.4, 0.3), strict=True)
    )
    answer = classification(*files, images=images)
    read = again(answer.to_dicom_sr(files[::-1]), tmp_path)
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []
    shown_in = [
        [
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for item in group.ContentSequence
            if item.ValueType == "IMAGE"
        ]
        for group in groups(read)
    ]
    assert shown_in == [["2.25.1", "2.25.3"], ["2.25.2"]]
    evidence = read.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [item.ReferencedSOPInstanceUID for item in evidence] == ["2.25.1", "2.25.2", "2.25.3"]


def test_of_a_multi_frame_file_the_frame_is_named(tmp_path: Path) -> None:
    file = generated("breast_ultrasound", SOPClassUID=UltrasoundMultiFrameImageStorage, NumberOfFrames=3)
    answer = classification(file, frames=(2,))
    source = said(groups(again(answer.to_dicom_sr(file), tmp_path))[0])["121112"]
    assert source.ReferencedFrameNumber == 2
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []


@pytest.mark.parametrize(("text", "language"), [("No pneumothorax.\nNormal heart.", "en"), ("左侧气胸。", "zh")])
def test_a_generated_text_is_told_in_its_language(text: str, language: str, tmp_path: Path) -> None:
    file = generated("chest_xray")
    read = again(generated_text(text).to_dicom_sr(file, study_instance_uid=file.StudyInstanceUID), tmp_path)
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []
    assert said(groups(read)[0])["GENERATED_TEXT"] == text
    assert read.ContentSequence[0].ConceptCodeSequence[0].CodeValue == language
    assert read.CompletionFlag == "COMPLETE"


def test_a_text_that_was_cut_off_makes_a_partial_report(tmp_path: Path) -> None:
    file = generated("chest_xray")
    report = generated_text(is_complete=False).to_dicom_sr(file, study_instance_uid=file.StudyInstanceUID)
    read = again(report, tmp_path)
    assert read.CompletionFlag == "PARTIAL"
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []


def test_old_forms_of_dates_and_times_are_not_written_on(tmp_path: Path) -> None:
    with pydicom.config.disable_value_validation():
        file = generated("chest_xray", StudyDate="1997.04.24", StudyTime="14:04:38")
    read = again(classification(file).to_dicom_sr(file), tmp_path)
    assert (read.StudyDate, read.StudyTime) == ("19970424", "140438")
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []


def test_an_identity_that_was_removed_nobody_says_how(tmp_path: Path) -> None:
    file = generated("chest_xray", PatientIdentityRemoved="YES", DeidentificationMethod=None)
    file.pop("DeidentificationMethodCodeSequence", None)
    read = again(classification(file).to_dicom_sr(file), tmp_path)
    assert read.DeidentificationMethod == "Not stated by the source"
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []
