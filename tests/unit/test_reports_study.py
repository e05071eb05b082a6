"""Answers to studies, as the codec makes them, written back to the slices and frames they are of."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import highdicom as hd
import numpy as np
import pytest
from pydicom.uid import EnhancedCTImageStorage
from support.outlines import LEVELS
from support.sdk_contracts import contract as small_contract
from support.series import enhanced, stack
from support.validators import dciodvfy_errors, dsrdump

from radserve import Classification, Segmentation, _codec
from radserve.contracts import Decision, EveryImage, FixedWindow, ImageInput, Policy, Task

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

DRAWN = np.zeros((6, 40, 50), np.uint8)
DRAWN[1:5, 10:30, 10:40] = 1
DRAWN[2:4, 12:20, 14:20] = 2
STUDY: dict[str, Any] = {
    "StudyInstanceUID": "1.2.840.9",
    "PatientName": "Wang^XiaoDong",
    "PatientID": "7",
    "SliceThickness": 5,
    "SpecificCharacterSet": "ISO_IR 192",
}


def series() -> list[Dataset]:
    return stack(np.array(LEVELS)[DRAWN], **STUDY)


def frames() -> Dataset:
    whole = enhanced(series())
    for keyword, value in STUDY.items():
        setattr(whole, keyword, value)
    whole.SOPClassUID, whole.SeriesInstanceUID = EnhancedCTImageStorage, "1.2.840.1"
    return whole


def answered(source: Any, task: Task) -> Any:
    """What a perfect model of the phantom says to every image."""
    described = ImageInput(
        modalities=("CT",),
        rows=40,
        columns=50,
        window=FixedWindow(center=100.5, width=201),
        absent_attributes=Policy.ACCEPT,
        study=EveryImage(),
    )
    contract = small_contract(described, task=task, names=("organ", "lesion"), max_batch_size=4)
    prepared = _codec.prepare(contract, source)
    answers = []
    for batch in _codec.batches(prepared, contract.max_batch_size):
        drawn = np.rint(batch["PIXELS"][..., 0] / 255 * 2).astype(np.uint8)
        shown = np.stack([(drawn == value).any(axis=(1, 2)) for value in (1, 2)], axis=1)
        arrays = {
            "LABEL_MAP": drawn,
            "PROBABILITIES": np.where(shown, 0.9, 0.1).astype(np.float32),
            "DECISIONS": np.where(shown, Decision.POSITIVE, Decision.NEGATIVE).astype(np.int8),
        }
        answers.append(_codec.Answer(arrays=arrays, request_id="r"))
    return _codec.combine(contract, prepared, answers)


def written(report: Dataset, path: Path) -> Path:
    report.save_as(path, enforce_file_format=True)
    assert dciodvfy_errors(path) == []
    return path


def test_the_label_map_of_a_series_comes_back_by_instance(tmp_path: Path) -> None:
    slices = series()
    result = answered(slices[::-1], Task.IMAGE_SEGMENTATION)
    assert isinstance(result, Segmentation)
    np.testing.assert_array_equal(result.label_map, DRAWN)
    seg = result.to_dicom_seg(slices[::-1])
    read = hd.seg.segread(written(seg, tmp_path / "seg.dcm"))
    found = read.get_pixels_by_source_instance(
        [one.SOPInstanceUID for one in slices], combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(found, DRAWN)
    volume = read.get_volume(combine_segments=True)
    assert volume.spacing == pytest.approx((5, 1, 1))
    path = written(result.to_dicom_sr(slices, segmentation=seg), tmp_path / "sr.dcm")
    assert dsrdump(path).count("SG image") == 2
    for region in result.findings:
        assert region.volume_mm3 == 5 * region.pixel_count
        assert f'NUM:(118565006,SCT,"Volume")="{region.volume_mm3}" (mm3,UCUM,"cubic millimeter")' in dsrdump(path)
    assert "42798000" not in dsrdump(path)


@pytest.mark.parametrize("differs", [1e-7, 4e-4])
def test_orientations_that_are_rounded_differently_are_one(differs: float, tmp_path: Path) -> None:
    slices = series()
    for number, one in enumerate(slices):
        one.ImageOrientationPatient = [1, differs * (number % 2), 0, 0, 1, 0]
    result = answered(slices, Task.IMAGE_SEGMENTATION)
    read = hd.seg.segread(written(result.to_dicom_seg(slices), tmp_path / "seg.dcm"))
    volume = read.get_volume(combine_segments=True)
    assert volume.spacing == pytest.approx((5, 1, 1))
    shown = DRAWN[DRAWN.any(axis=(1, 2))]  # slices of nothing have no frame
    assert any(np.array_equal(found, shown) for found in (volume.array, volume.array[::-1]))


@pytest.mark.parametrize("thickness", [None, ""])
def test_the_distance_between_slices_stands_in_for_a_thickness_not_told(thickness: str | None, tmp_path: Path) -> None:
    slices = stack(np.array(LEVELS)[DRAWN], spacing_mm=(10 / 3, 1.0, 1.0), **STUDY)
    for one in slices:
        one.SliceThickness = thickness
    result = answered(slices, Task.IMAGE_SEGMENTATION)
    read = hd.seg.segread(written(result.to_dicom_seg(slices), tmp_path / "seg.dcm"))
    assert read.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
    measures = read.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == pytest.approx(10 / 3)
    assert read.get_volume(combine_segments=True).spacing == pytest.approx((10 / 3, 1, 1))


@pytest.mark.parametrize("place", ["known", "unknown"])
def test_the_label_map_of_a_multi_frame_file_comes_back_by_frame(place: str, tmp_path: Path) -> None:
    whole = frames()
    if place == "unknown":
        del whole.FrameOfReferenceUID
    result = answered(whole, Task.IMAGE_SEGMENTATION)
    assert result.provenance.frame_numbers == (1, 2, 3, 4, 5, 6)
    read = hd.seg.segread(written(result.to_dicom_seg(whole), tmp_path / "seg.dcm"))
    assert ("FrameOfReferenceUID" in read) == (place == "known")
    found = read.get_pixels_by_source_frame(
        whole.SOPInstanceUID,
        result.provenance.frame_numbers,
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    np.testing.assert_array_equal(found, DRAWN)


@pytest.mark.parametrize("kind", ["series", "frames"])
def test_findings_of_a_study_refer_to_the_images_that_show_them(kind: str, tmp_path: Path) -> None:
    slices, whole = series(), frames()
    source = slices if kind == "series" else whole
    expected = {
        "series": [(one.SOPInstanceUID, None) for one in slices[2:4]],
        "frames": [(whole.SOPInstanceUID, 3), (whole.SOPInstanceUID, 4)],
    }
    result = answered(source, Task.IMAGE_CLASSIFICATION)
    assert isinstance(result, Classification)
    report = result.to_dicom_sr(source)
    assert "lesion" in dsrdump(written(report, tmp_path / "sr.dcm"))
    (lesion,) = [
        group
        for group in report.ContentSequence[-1].ContentSequence
        if any(item.get("TextValue") == "lesion" for item in group.ContentSequence)
    ]
    images = [item.ReferencedSOPSequence[0] for item in lesion.ContentSequence if item.ValueType == "IMAGE"]
    assert [(one.ReferencedSOPInstanceUID, one.get("ReferencedFrameNumber")) for one in images] == expected[kind]


def test_a_capture_is_of_the_frame_that_shows_most(tmp_path: Path) -> None:
    whole = frames()
    result = answered(whole, Task.IMAGE_SEGMENTATION)
    stacked = result.label_map.copy()
    stacked[3, :5] = 2
    capture = dataclasses.replace(result, label_map=stacked).to_secondary_capture(whole)
    written(capture, tmp_path / "sc.dcm")
    assert capture.SourceImageSequence[0].ReferencedFrameNumber == 4
