"""Label maps as Segmentations: the same pixels at the same place, as highdicom and pydicom read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, UltrasoundMultiFrameImageStorage
from support.answers import content, drawn, generated, segmentation
from support.datasets import item
from support.validators import dciodvfy_errors, errors_of

from radserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

UNPLACED = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")


def written(report: Dataset, folder: Path) -> hd.seg.Segmentation:
    path = folder / "seg.dcm"
    report.save_as(path, enforce_file_format=True)
    assert dciodvfy_errors(path) == []
    return hd.seg.segread(path)


def by_instance(read: hd.seg.Segmentation, uids: Sequence[str]) -> NDArray[Any]:
    found: NDArray[Any] = read.get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    return found


def by_frame(read: hd.seg.Segmentation, uid: str, frames: Sequence[int]) -> NDArray[Any]:
    found: NDArray[Any] = read.get_pixels_by_source_frame(
        uid, frames, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    return found


@pytest.mark.parametrize("name", ["chest_xray", "ct_lesion", "brain_mri", "breast_ultrasound"])
def test_the_pixels_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    file = generated(name)
    label_map = drawn(file.Rows, file.Columns)
    read = written(segmentation(label_map, file).to_dicom_seg(content(file)), tmp_path)
    (found,) = by_instance(read, [file.SOPInstanceUID])
    np.testing.assert_array_equal(found, label_map)


def test_pydicom_reads_the_same_pixels(tmp_path: Path) -> None:
    file = generated("ct_lesion")
    label_map = drawn(file.Rows, file.Columns)
    written(segmentation(label_map, file).to_dicom_seg(file), tmp_path)
    read = pydicom.dcmread(tmp_path / "seg.dcm")
    for frame, groups in zip(read.pixel_array, read.PerFrameFunctionalGroupsSequence, strict=True):
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(frame, label_map == number)


def test_each_segment_is_described_by_its_label(tmp_path: Path) -> None:
    file = generated("ct_lesion")
    read = written(segmentation(drawn(file.Rows, file.Columns), file).to_dicom_seg(file), tmp_path)
    liver, lesion = read.SegmentSequence
    assert [each.SegmentNumber for each in (liver, lesion)] == [1, 2]
    assert [each.SegmentLabel for each in (liver, lesion)] == ["liver", "lesion"]
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert liver.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
    assert lesion.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Category not stated"
    assert liver.SegmentAlgorithmType == "AUTOMATIC"
    (algorithm,) = liver.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("ct_lesion", "2")
    assert f"model_sha256={'0' * 64}" in algorithm.AlgorithmParameters


def test_the_geometry_is_the_sources(tmp_path: Path) -> None:
    file = generated("ct_lesion")
    read = written(segmentation(drawn(file.Rows, file.Columns), file).to_dicom_seg(file), tmp_path)
    assert read.FrameOfReferenceUID == file.FrameOfReferenceUID
    shared = read.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == file.ImageOrientationPatient
    assert shared.PixelMeasuresSequence[0].PixelSpacing == file.PixelSpacing
    position = read.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    assert position == file.ImagePositionPatient


@pytest.mark.parametrize("absent", [("SliceThickness",), ("FrameOfReferenceUID",), UNPLACED])
def test_without_all_of_the_geometry_it_is_tied_to_the_sources_pixels(absent: tuple[str, ...], tmp_path: Path) -> None:
    file = generated("ct_lesion", **dict.fromkeys(absent))
    label_map = drawn(file.Rows, file.Columns)
    read = written(segmentation(label_map, file).to_dicom_seg(file), tmp_path)
    np.testing.assert_array_equal(by_instance(read, [file.SOPInstanceUID])[0], label_map)
    assert "FrameOfReferenceUID" not in read
    source = read.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPClassUID == CTImageStorage


def test_a_map_of_nothing_has_its_segments_all_the_same(tmp_path: Path) -> None:
    file = generated("ct_lesion")
    read = written(segmentation(np.zeros((file.Rows, file.Columns), np.uint8), file).to_dicom_seg(file), tmp_path)
    assert len(read.SegmentSequence) == 2
    assert not by_instance(read, [file.SOPInstanceUID]).any()


def test_a_label_that_is_nowhere_has_a_segment_without_frames(tmp_path: Path) -> None:
    file = generated("ct_lesion")
    label_map = drawn(file.Rows, file.Columns)
    label_map[label_map == 2] = 0
    read = written(segmentation(label_map, file).to_dicom_seg(file), tmp_path)
    assert (len(read.SegmentSequence), read.NumberOfFrames) == (2, 1)
    np.testing.assert_array_equal(by_instance(read, [file.SOPInstanceUID])[0], label_map)


def series(count: int) -> list[Dataset]:
    files = []
    for index in range(count):
        file = generated("ct_lesion", SOPInstanceUID=f"2.25.{index + 1}", InstanceNumber=index + 1)
        x, y, z = file.ImagePositionPatient
        file.ImagePositionPatient = [x, y, float(z) + 5 * index]
        files.append(file)
    return files


def test_a_stack_comes_back_slice_by_slice_whatever_the_order_of_its_sources(tmp_path: Path) -> None:
    files = series(4)
    label_map = drawn(4, files[0].Rows, files[0].Columns)
    for index in range(4):
        label_map[index, 20, : index + 1] = 2
    label_map[2] = 0
    answer = segmentation(label_map, *files)
    seg = answer.to_dicom_seg(files[::-1])
    read = written(seg, tmp_path)
    np.testing.assert_array_equal(by_instance(read, [file.SOPInstanceUID for file in files]), label_map)
    heights = {
        groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID: float(
            groups.PlanePositionSequence[0].ImagePositionPatient[2]
        )
        for groups in read.PerFrameFunctionalGroupsSequence
    }
    positions = {
        str(file.SOPInstanceUID): float(file.ImagePositionPatient[2]) for file in files if file is not files[2]
    }
    assert heights == positions
    assert errors_of(answer.to_dicom_sr(files, segmentation=seg), tmp_path) == []


def test_a_folder_is_read_as_its_files(tmp_path: Path) -> None:
    files = series(2)
    (tmp_path / "study").mkdir()
    for file in files:
        (tmp_path / "study" / f"{file.SOPInstanceUID}.dcm").write_bytes(content(file))
    label_map = drawn(2, files[0].Rows, files[0].Columns)
    read = written(segmentation(label_map, *files).to_dicom_seg(tmp_path / "study"), tmp_path)
    np.testing.assert_array_equal(by_instance(read, [file.SOPInstanceUID for file in files]), label_map)


def older_multi_frame(count: int) -> Dataset:
    """An ultrasound cine: frames without positions, of a class that highdicom takes no stack of."""
    file = generated("breast_ultrasound", SOPClassUID=UltrasoundMultiFrameImageStorage)
    file.NumberOfFrames, file.PixelData = count, file.PixelData * count
    return file


def test_all_frames_of_an_older_multi_frame_file_come_back(tmp_path: Path) -> None:
    file = older_multi_frame(3)
    label_map = drawn(3, file.Rows, file.Columns)
    label_map[1, 30, 30] = 2
    answer = segmentation(label_map, file, frames=(1, 2, 3))
    seg = answer.to_dicom_seg(file)
    read = written(seg, tmp_path)
    np.testing.assert_array_equal(by_frame(read, file.SOPInstanceUID, [1, 2, 3]), label_map)
    numbers = {
        (
            int(groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber),
            groups.FrameContentSequence[0].InStackPositionNumber,
        )
        for groups in read.PerFrameFunctionalGroupsSequence
    }
    assert numbers == {(1, 1), (2, 2), (3, 3)}
    (listed,) = read.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert (listed.ReferencedSOPClassUID, listed.ReferencedSOPInstanceUID) == (file.SOPClassUID, file.SOPInstanceUID)
    assert errors_of(answer.to_dicom_sr(file, segmentation=seg), tmp_path) == []


def test_the_frame_chosen_is_named(tmp_path: Path) -> None:
    file = older_multi_frame(3)
    label_map = drawn(file.Rows, file.Columns)
    read = written(segmentation(label_map, file, frames=(2,)).to_dicom_seg(file), tmp_path)
    np.testing.assert_array_equal(by_frame(read, file.SOPInstanceUID, [2])[0], label_map)
    assert not by_frame(read, file.SOPInstanceUID, [1]).any()


def test_frames_of_an_enhanced_file_have_their_own_geometry(tmp_path: Path) -> None:
    file = generated("ct_lesion", SOPClassUID=EnhancedCTImageStorage)
    thickness = {"PixelSpacing": file.PixelSpacing, "SliceThickness": file.SliceThickness}
    file.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(**thickness)],
            PlaneOrientationSequence=[item(ImageOrientationPatient=file.ImageOrientationPatient)],
        )
    ]
    file.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, height])]) for height in (10, 15)
    ]
    file.NumberOfFrames, file.PixelData = 2, file.PixelData * 2
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del file[keyword]
    label_map = drawn(2, file.Rows, file.Columns)
    read = written(segmentation(label_map, file, frames=(1, 2)).to_dicom_seg(file), tmp_path)
    np.testing.assert_array_equal(by_frame(read, file.SOPInstanceUID, [1, 2]), label_map)
    heights = {
        groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber: float(
            groups.PlanePositionSequence[0].ImagePositionPatient[2]
        )
        for groups in read.PerFrameFunctionalGroupsSequence
    }
    assert heights == {1: 10, 2: 15}


@pytest.mark.parametrize("broken", ["SegmentSequence", "StudyInstanceUID", "SegmentationType", "Modality"])
def test_dciodvfy_finds_what_is_broken(broken: str, tmp_path: Path) -> None:
    file = generated("ct_lesion")
    report = segmentation(drawn(file.Rows, file.Columns), file).to_dicom_seg(file)
    assert errors_of(report, tmp_path) == []
    del report[broken]
    assert errors_of(report, tmp_path)


def test_a_map_of_another_size_or_number_is_refused() -> None:
    file = generated("ct_lesion")
    with pytest.raises(InputError, match="not of the source's size"):
        segmentation(drawn(file.Columns + 1, file.Rows), file).to_dicom_seg(file)
    with pytest.raises(InputError, match="not of as many images"):
        segmentation(drawn(2, file.Rows, file.Columns), file).to_dicom_seg(file)
    cine = older_multi_frame(3)
    for frames in ((), (1, 2)):
        with pytest.raises(InputError, match="not of as many images"):
            segmentation(drawn(cine.Rows, cine.Columns), cine, frames=frames).to_dicom_seg(cine)
