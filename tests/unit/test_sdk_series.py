"""A folder, a list or a multi-frame file as one series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.datasets import TEST_FILES, item, make
from support.series import enhanced, stack

from radserve.dicom import open_series, read_image
from radserve.errors import (
    DecodeError,
    DicomError,
    InconsistentSeriesError,
    InputError,
    MissingAttributeError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydicom.dataset import Dataset

VALUES = np.arange(8 * 3 * 4).reshape(8, 3, 4)
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


def slices(count: int = 8, **changed: Any) -> list[Dataset]:
    return stack(VALUES[:count], **changed)


def first_pixels(source: Any) -> list[float]:
    return [float(image.values[0, 0]) for image in open_series(source).images()]


IN_ORDER = [float(plane[0, 0]) for plane in VALUES]


def save(datasets: list[Dataset], folder: Path) -> Path:
    for number, dataset in enumerate(datasets):
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE, (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, 1, 0)])
def test_slices_are_ordered_along_the_normal_whatever_their_numbers_say(orientation: tuple[float, ...]) -> None:
    shuffled = [slices(orientation=orientation)[place] for place in (3, 0, 7, 1, 6, 2, 5, 4)]
    assert first_pixels(shuffled) == IN_ORDER


def test_a_folder_is_a_series(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_bytes(b"no file of the series")
    (tmp_path / "DICOMDIR").write_bytes(b"an index")
    assert first_pixels(save(slices()[::-1], tmp_path)) == IN_ORDER


def test_frames_of_an_enhanced_file_are_a_series() -> None:
    frames = enhanced(slices()[::-1])
    assert first_pixels(frames) == IN_ORDER
    assert [image.frame_number for image in open_series(frames).images()] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert open_series(frames).require_volume() == open_series(slices()).require_volume()


def test_the_stack_says_where_it_lies() -> None:
    geometry = open_series(slices(orientation=OBLIQUE, spacing_mm=(2.5, 0.5, 0.25))[::-1]).require_volume()
    assert geometry.position_mm == (-10, -20, 30)
    assert geometry.row_cosines == (0.8, 0.6, 0)
    assert geometry.pixel_spacing_mm == (0.5, 0.25)
    assert geometry.slice_spacing_mm == pytest.approx(2.5)
    assert geometry.frame_of_reference_uid == "1.2.840.3"


def test_images_without_a_place_are_ordered_by_number() -> None:
    projections = slices(ImagePositionPatient=None)
    assert first_pixels(projections) == IN_ORDER[::-1]
    with pytest.raises(InconsistentSeriesError, match="no place in the patient"):
        open_series(projections).require_volume()


def test_a_cine_is_in_the_order_of_its_frames() -> None:
    cine = make(Rows=3, Columns=4, NumberOfFrames=8, PixelData=VALUES.astype("<u2").tobytes())
    assert first_pixels(cine) == IN_ORDER


def _with(number: int, **changed: Any) -> list[Dataset]:
    made = slices()
    for keyword, value in changed.items():
        setattr(made[number], keyword, value)
    return made


def _tilted(degrees: float) -> list[Dataset]:
    made = slices()
    for number, one in enumerate(made):
        one.ImagePositionPatient[1] += 5 * number * np.tan(np.radians(degrees))
    return made


@pytest.mark.parametrize(
    ("series", "match"),
    [
        (_with(4, SeriesInstanceUID="1.9"), "several series"),
        (_with(4, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "several orientations"),
        (_with(4, ImageOrientationPatient=[0.999, 0.0447, 0, -0.0447, 0.999, 0]), "several orientations"),
        (_with(4, PixelSpacing=[0.5, 1]), "PixelSpacing differs"),
        (_with(4, Rows=2), "Rows differs"),
        (_with(4, Modality="MR"), "Modality differs"),
        (_with(4, FrameOfReferenceUID="1.9"), "FrameOfReferenceUID differs"),
        (_with(4, StudyInstanceUID="1.9"), "StudyInstanceUID differs"),
        (_with(4, PatientID="66"), "PatientID differs"),
        (_with(4, SOPInstanceUID="1.2.840.2.1"), "there twice"),
        (_with(4, ImagePositionPatient=[-10, -20, 45.0]), "at the same place"),
        (_with(4, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
        (slices() + slices(SOPInstanceUID=None), "there twice"),
        (slices()[:3] + slices()[4:], "missing after number 3 of 7"),
        (_with(7, ImagePositionPatient=[-10, -20, 66.0]), "missing after number 7 of 8"),
        (_with(0, SOPInstanceUIDOfConcatenationSource="1.9"), "part of a concatenation"),
    ],
)
def test_what_is_not_one_complete_series_is_refused(series: list[Dataset], match: str) -> None:
    with pytest.raises(InconsistentSeriesError, match=match):
        open_series(series)


@pytest.mark.parametrize(
    ("series", "keyword"),
    [
        (slices(SeriesInstanceUID=None), "SeriesInstanceUID"),
        (_with(0, ImagePositionPatient=None), "ImagePositionPatient"),
        (_with(5, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "ImagePositionPatient"),
        (_with(5, PixelSpacing=[1, -1]), "ImagePositionPatient"),
    ],
)
def test_what_a_series_needs_is_named(series: list[Dataset], keyword: str) -> None:
    with pytest.raises(MissingAttributeError) as caught:
        open_series(series)
    assert caught.value.keyword == keyword


@pytest.mark.parametrize(
    ("series", "match"),
    [
        (slices(1), "one image is no volume"),
        (_tilted(10), "gantry tilt"),
        (_with(0, ImagePositionPatient=[-10, -20, 32]), "uneven"),
    ],
)
def test_what_is_no_volume_can_still_be_answered_image_by_image(series: list[Dataset], match: str) -> None:
    opened = open_series(series)
    assert len(list(opened.images())) == len(series)
    with pytest.raises(InconsistentSeriesError, match=match):
        opened.require_volume()


def _acquired(numbers: Sequence[int | None]) -> list[Dataset]:
    made = slices()
    for one, number in zip(made, numbers, strict=True):
        one.AcquisitionNumber = number
    return made


def _acquired_frames(numbers: list[int]) -> Dataset:
    whole = enhanced(slices())
    for group, number in zip(whole.PerFrameFunctionalGroupsSequence, numbers, strict=True):
        group.FrameContentSequence = [item(FrameAcquisitionNumber=number)]
    return whole


@pytest.mark.parametrize(
    "source", [_acquired([1, 2] * 4), _acquired([1] * 3 + [2] + [1] * 4), _acquired_frames([1, 2] * 4)]
)
def test_acquisitions_that_lie_between_each_other_are_refused(source: Any) -> None:
    with pytest.raises(InconsistentSeriesError, match="AcquisitionNumber"):
        open_series(source)


@pytest.mark.parametrize(
    "source",
    [
        _acquired([2] * 4 + [1] * 4),
        _acquired([1, 2, 3, 4, 5, 6, 7, 8]),
        _acquired([1, None] * 4),
        _acquired_frames([1] * 4 + [2] * 4),
    ],
)
def test_acquisitions_one_after_the_other_may_be_one_scan(source: Any) -> None:
    assert len(open_series(source)) == 8


def test_a_gap_is_measured_against_the_models_tolerance() -> None:
    wide = _with(7, ImagePositionPatient=[-10, -20, 66.0])  # 6 mm instead of 5
    assert len(open_series(wide, maximum_gap=0.25)) == 8


def test_positions_are_compared_with_the_precision_of_real_files() -> None:
    made = slices(spacing_mm=(1.25, 0.5, 0.5))
    for one in made:
        one.ImagePositionPatient = [round(x, 2) for x in one.ImagePositionPatient]
        one.ImageOrientationPatient = [1, 0.0002, 0, -0.0002, 1, 0]
    assert open_series(made).require_volume().slice_spacing_mm == pytest.approx(1.25, abs=0.002)


def test_a_bad_file_is_named_by_its_place(tmp_path: Path) -> None:
    folder = save(slices(), tmp_path)
    (folder / "4.dcm").write_bytes(b"DOEJOHN")
    with pytest.raises(DecodeError, match="file 5 of 8: not a DICOM file") as caught:
        open_series(folder)
    assert str(tmp_path) not in str(caught.value)


def test_damaged_pixels_are_named_by_their_place() -> None:
    series = open_series(_with(2, PixelData=b"\0\0"))
    with pytest.raises(DicomError, match="file 3 of 8: the pixel data"):
        list(series.images())


def test_a_file_that_changes_meanwhile_is_not_used(tmp_path: Path) -> None:
    series = open_series(save(slices(), tmp_path))
    _with(2, SOPInstanceUID="1.9")[2].save_as(tmp_path / "2.dcm", enforce_file_format=True)
    with pytest.raises(InconsistentSeriesError, match="has changed"):
        list(series.images())


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "deeper").mkdir()
    return tmp_path


def test_a_folder_of_folders_or_of_nothing_is_no_series(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        open_series(tmp_path)
    with pytest.raises(InputError, match="holds folders"):
        open_series(_folder(tmp_path))


@pytest.mark.parametrize("source", [[], [b""] * 5000, [None], "/nowhere", "\0", 7])
def test_what_is_no_series_at_all_is_refused(source: Any) -> None:
    with pytest.raises(InputError):
        open_series(source)


def test_too_many_frames_are_refused_before_any_is_read() -> None:
    with pytest.raises(DecodeError, match="4096 frames"):
        open_series(make(NumberOfFrames=5000))


def test_no_value_of_the_file_is_in_a_message() -> None:
    for series in (
        _with(1, Modality="DOEJOHN"),
        _with(1, SeriesInstanceUID="1.66.6"),
        _with(1, PatientName="DOEJOHN", Rows=66),
    ):
        with pytest.raises(InconsistentSeriesError) as caught:
            open_series(series)
        assert "DOE" not in str(caught.value)
        assert "66" not in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "images"),
    [
        ("98892001/CT5N", 5),
        ("77654033/CR1", 1),
        ("98892003/MR700", "several orientations"),
        ("98892003/MR2", "several series"),
        ("98892001/CT2N", "localizer"),
        ("77654033/CT2", "missing after number 1 of 4"),
    ],
)
def test_real_folders(folder: str, images: int | str) -> None:
    source = TEST_FILES / "dicomdirtests" / folder
    if isinstance(images, int):
        assert len(list(open_series(source).images())) == images
    else:
        with pytest.raises(InconsistentSeriesError, match=images):
            open_series(source)


def test_a_real_folder_is_a_volume() -> None:
    geometry = open_series(TEST_FILES / "dicomdirtests/98892001/CT5N").require_volume()
    assert (geometry.slice_spacing_mm, geometry.pixel_spacing_mm) == (2.5, (0.488281, 0.488281))


def test_frames_whose_places_are_told_otherwise_have_none() -> None:
    # Grid Frame Offset Vector of a dose: the data set's own place is that of the first frame alone.
    assert open_series(TEST_FILES / "rtdose.dcm").geometry is None


def test_the_slice_location_of_a_group_alone_is_no_place() -> None:
    half = enhanced(slices())
    half.PerFrameFunctionalGroupsSequence[2] = item()
    with pytest.raises(MissingAttributeError, match="ImagePositionPatient"):
        open_series(half)


def _regions(*deltas: tuple[float, float], units: tuple[int, int] = (3, 3)) -> list[Dataset]:
    physical = {"PhysicalUnitsYDirection": units[0], "PhysicalUnitsXDirection": units[1]}
    return [item(PhysicalDeltaY=y, PhysicalDeltaX=x, **physical) for y, x in deltas]


M_MODE = _regions((0.05, 0.01), units=(3, 4))  # cm and s
DOPPLER = _regions((0.5, 0.01), units=(7, 4))  # cm/s and s


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": [0.5, 0.25], "PixelAspectRatio": [1, 1]}, 2),
        ({"ImagerPixelSpacing": [0.3, 0.1]}, 3),
        ({"NominalScannedPixelSpacing": [0.3, 0.1]}, 3),
        ({"PixelAspectRatio": [2, 1]}, 2),
        ({"SequenceOfUltrasoundRegions": _regions((0.02, -0.01), (0.04, 0.02))}, 2),
        ({"SequenceOfUltrasoundRegions": _regions((0.02, 0.01), (0.01, 0.01))}, None),
        ({"SequenceOfUltrasoundRegions": M_MODE}, None),
        ({"SequenceOfUltrasoundRegions": DOPPLER}, None),
        ({"SequenceOfUltrasoundRegions": [*M_MODE, *_regions((0.02, 0.01)), *DOPPLER]}, 2),
        ({"SequenceOfUltrasoundRegions": [item(PhysicalDeltaY=0.02, PhysicalDeltaX=0.01)]}, None),
        ({"PixelSpacing": [0, 0.25]}, np.nan),
        ({"PixelSpacing": [1]}, np.nan),
        ({"PixelAspectRatio": [1, 0]}, np.nan),
    ],
)
def test_the_shape_of_pixels_is_what_the_file_says_first(attributes: dict[str, Any], expected: float | None) -> None:
    found = read_image(make(**attributes)).pixel_aspect
    assert found == (expected if expected is None else pytest.approx(expected, nan_ok=True))


def test_an_image_says_where_it_lies() -> None:
    image = read_image(slices(orientation=OBLIQUE, spacing_mm=(5, 0.5, 0.25))[2])
    assert image.geometry is not None
    assert image.geometry.position_mm == pytest.approx((-10 - 0.6 * 10, -20 + 0.8 * 10, 30))
    assert image.geometry.normal == pytest.approx((-0.6, 0.8, 0))
    assert (image.geometry.slice_spacing_mm, image.pixel_aspect, image.frame_number) == (None, 2, None)


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImagePositionPatient": [0, 0]},
        {"ImagePositionPatient": [0, 0, 1e9]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]},
        {"PixelSpacing": [0, 1]},
        {"PixelSpacing": None},
    ],
)
def test_a_plane_that_breaks_the_standard_is_none(attributes: dict[str, Any]) -> None:
    (one,) = slices(1)
    for keyword, value in attributes.items():
        setattr(one, keyword, value)
    assert read_image(one).geometry is None
