"""Secondary captures: the picture as dcmtk shows it, what was found over it, and the warning above it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageDraw, ImageFont
from pydicom.uid import UltrasoundMultiFrameImageStorage
from support.answers import classification, content, drawn, finding, generated, provenance, segmentation
from support.validators import dciodvfy_errors, errors_of

from radserve import EvidenceMap, ImageFindings
from radserve.contracts import Code
from radserve.errors import InputError, OutOfScopeError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from radserve import Classification

IMAGES = ("chest_xray", "ct_lesion", "brain_mri", "breast_ultrasound")


def shown(path: Path, *options: str) -> NDArray[np.uint8]:
    """What dcmtk makes of a file."""
    picture = path.with_suffix(".pnm")
    subprocess.run(["dcmj2pnm", *options, str(path), str(picture)], check=True, capture_output=True)  # noqa: S603, S607 - dcmtk, on the path
    return np.asarray(Image.open(picture))


def saved(dataset: Dataset, folder: Path) -> Path:
    path = folder / "file.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def picture_of(capture: Dataset, source: Dataset) -> NDArray[np.uint8]:
    """The capture without its band, at the source's size."""
    pixels: NDArray[np.uint8] = capture.pixel_array
    factor = pixels.shape[1] // int(source.Columns)
    return pixels[-int(source.Rows) * factor :][::factor, ::factor]


def explained(file: Dataset, *places: tuple[int, int]) -> Classification:
    values = np.zeros((file.Rows, file.Columns), np.float32)
    for place in places:
        values[place] = 1
    return classification(file, evidence=EvidenceMap(label="pneumothorax", values=values))


@pytest.mark.parametrize("name", IMAGES)
def test_validators_accept_it_and_dcmtk_shows_its_pixels(name: str, tmp_path: Path) -> None:
    file = generated(name)
    capture = explained(file, (40, 50)).to_secondary_capture(content(file))
    path = saved(capture, tmp_path)
    assert dciodvfy_errors(path) == []
    np.testing.assert_array_equal(shown(path), pydicom.dcmread(path).pixel_array)


@pytest.mark.parametrize("name", ["ct_lesion", "chest_xray"])
def test_where_nothing_is_drawn_the_picture_is_as_dcmtk_shows_the_source(name: str, tmp_path: Path) -> None:
    file = generated(name)
    windowed = ("+Wi", "1") if "WindowCenter" in file else ()
    expected = shown(saved(file, tmp_path), *windowed).astype(int)
    found = picture_of(classification(file).to_secondary_capture(file), file).astype(int)
    assert np.abs(found - expected[:, :, np.newaxis]).max() <= 1


@pytest.mark.parametrize("name", IMAGES)
def test_the_label_map_is_drawn_where_it_is_and_nowhere_else(name: str) -> None:
    file = generated(name)
    label_map = drawn(file.Rows, file.Columns)
    plain = picture_of(segmentation(np.zeros_like(label_map), file).to_secondary_capture(file), file)
    found = picture_of(segmentation(label_map, file).to_secondary_capture(file), file)
    changed = (found != plain).any(axis=-1)
    np.testing.assert_array_equal(changed, label_map > 0)
    colours = {
        value: np.rint((found.astype(float) - 0.6 * plain)[label_map == value].mean(axis=0) / 0.4) for value in (1, 2)
    }
    assert np.abs(colours[1] - colours[2]).max() > 50


def test_the_evidence_is_brightest_where_the_map_is() -> None:
    file = generated("chest_xray")
    plain = picture_of(classification(file).to_secondary_capture(file), file).astype(int)
    found = picture_of(explained(file, (40, 50)).to_secondary_capture(file), file).astype(int)
    assert np.argwhere((found != plain).any(axis=-1)).tolist() == [[40, 50]]


def stands_above(line: str, capture: Dataset, source: Dataset, channel: int = 2) -> bool:
    """Whether a line of text, or as much of it as is 180 pixels wide, is in the band."""
    pixels: NDArray[np.uint8] = capture.pixel_array
    band = pixels[: -int(source.Rows) * (pixels.shape[1] // int(source.Columns))]
    font = ImageFont.load_default(16)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(line))
    stencil = Image.new("RGB", (right - left, bottom - top))
    colour = (255, 255, 0) if channel == 0 else (255, 255, 255)
    ImageDraw.Draw(stencil).text((-left, -top), line, fill=colour, font=font)
    wanted = np.asarray(stencil)[:, :, channel]
    places = sliding_window_view(band[:, :200, channel], (wanted.shape[0], min(wanted.shape[1], 180)))
    return bool((places == wanted[:, :180]).all(axis=(2, 3)).any())


@pytest.mark.parametrize(
    ("line", "channel"),
    [
        ("AI result, not reviewed", 0),
        ("pneumothorax: 0.938, positive", 2),
        ("map: evidence for pneumothorax", 2),
    ],
)
def test_the_warning_stands_above_the_picture(line: str, channel: int) -> None:
    file = generated("chest_xray")
    assert stands_above(line, explained(file, (40, 50)).to_secondary_capture(file), file, channel)


@pytest.mark.parametrize(("meaning", "name"), [("Lung lesion", "Lung lesion"), ("病变", "99TEST LESION")])
def test_a_label_in_letters_that_the_font_lacks_is_named_by_its_code(meaning: str, name: str) -> None:
    file = generated("chest_xray")
    made = finding("病变", code=Code(value="LESION", scheme="99TEST", meaning=meaning))
    evidence = EvidenceMap(label="病变", values=np.zeros((file.Rows, file.Columns), np.float32))
    capture = classification(file, findings=(made,), evidence=evidence).to_secondary_capture(file)
    assert stands_above(f"{name}: 0.938, positive", capture, file)
    assert stands_above(f"map: evidence for {name}", capture, file)


@pytest.mark.parametrize(
    ("spacing", "ratio"),
    [([0.5, 1.5], [1, 3]), ([1.25, 1], [5, 4]), ([0.7, 0.7], None), ([0.7, 0.7000001], None), ([1, 1e9], None)],
)
def test_pixels_that_are_not_square_are_told(spacing: list[float], ratio: list[int] | None, tmp_path: Path) -> None:
    file = generated("ct_lesion", PixelSpacing=spacing)
    path = saved(classification(file).to_secondary_capture(file), tmp_path)
    assert dciodvfy_errors(path) == []
    assert pydicom.dcmread(path).get("PixelAspectRatio") == ratio


def test_a_small_picture_is_enlarged_a_large_one_is_not() -> None:
    small = generated("ct_lesion")
    capture = classification(small).to_secondary_capture(small)
    assert capture.Columns >= 512
    assert capture.Columns % small.Columns == 0
    large = generated("chest_xray")
    repeated = np.tile(large.pixel_array, (2, 4))
    large.Rows, large.Columns, large.PixelData = *repeated.shape, repeated.tobytes()
    capture = classification(large).to_secondary_capture(large)
    assert capture.Columns == large.Columns


def test_monochrome1_is_shown_inverted_once() -> None:
    file = generated("chest_xray")
    other = "MONOCHROME1" if file.PhotometricInterpretation == "MONOCHROME2" else "MONOCHROME2"
    inverse = generated("chest_xray", PhotometricInterpretation=other)
    one, two = (
        picture_of(classification(each).to_secondary_capture(each), each).astype(int) for each in (file, inverse)
    )
    assert np.abs(one + two - 255).max() <= 1


def test_of_a_stack_the_slice_given_is_shown() -> None:
    files = [generated("ct_lesion", SOPInstanceUID=f"2.25.{index}") for index in (1, 2)]
    label_map = np.zeros((2, files[0].Rows, files[0].Columns), np.uint8)
    label_map[1, 20:30, 40:60] = 1
    answer = segmentation(label_map, *files)
    plain = picture_of(classification(files[0]).to_secondary_capture(files[0]), files[0])
    for file, expected in zip(files, label_map, strict=True):
        capture = answer.to_secondary_capture(file)
        np.testing.assert_array_equal((picture_of(capture, file) != plain).any(axis=-1), expected > 0)
        assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == file.SOPInstanceUID
    with pytest.raises(InputError, match="one of the files"):
        answer.to_secondary_capture(files)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [0, 1])
def test_of_a_study_of_frames_and_files_no_picture_is_guessed(given: int) -> None:
    files = cine(), generated("breast_ultrasound", SOPInstanceUID="2.25.1")
    answer = segmentation(drawn(4, files[0].Rows, files[0].Columns), *files, frames=(1, 2, 3))
    with pytest.raises(InputError, match="predict one multi-frame file at a time"):
        answer.to_secondary_capture(files[given])


def cine() -> Dataset:
    """Frames that differ."""
    file = generated("breast_ultrasound", SOPClassUID=UltrasoundMultiFrameImageStorage)
    frame = file.pixel_array
    file.NumberOfFrames = 3
    file.PixelData = b"".join((frame // divisor).tobytes() for divisor in (1, 2, 4))
    return file


def test_of_a_multi_frame_file_the_frame_that_shows_most_is_shown(tmp_path: Path) -> None:
    file = cine()
    label_map = np.zeros((3, file.Rows, file.Columns), np.uint8)
    label_map[1, 5:9, 5:9] = 1
    images = tuple(
        ImageFindings(
            sop_instance_uid=str(file.SOPInstanceUID), frame_number=number, findings=(finding(probability=probability),)
        )
        for number, probability in enumerate((0.1, 0.9, 0.3), start=1)
    )
    frames = (1, 2, 3)
    for answer in (
        segmentation(label_map, file, frames=frames),
        classification(file, frames=frames, images=images, findings=(finding(),)),
        classification(file, frames=(2,)),
    ):
        capture = answer.to_secondary_capture(file)
        assert errors_of(capture, tmp_path) == []
        assert capture.SourceImageSequence[0].ReferencedFrameNumber == 2
        single = generated("breast_ultrasound")
        single.PixelData = (single.pixel_array // 2).tobytes()
        plain = picture_of(classification(single).to_secondary_capture(single), single)
        np.testing.assert_array_equal(picture_of(capture, file)[10:], plain[10:])


@pytest.mark.parametrize("kind", ["files", "frames"])
def test_the_map_of_a_study_is_drawn_over_its_own_image_alone(kind: str, tmp_path: Path) -> None:
    files = (
        [cine()]
        if kind == "frames"
        else [generated("ct_lesion", SOPInstanceUID=f"2.25.{index}") for index in (1, 2, 3)]
    )
    named = [(files[0], 1), (files[0], 2), (files[0], 3)] if kind == "frames" else [(file, None) for file in files]
    images = tuple(
        ImageFindings(sop_instance_uid=str(file.SOPInstanceUID), frame_number=number, findings=(finding(),))
        for file, number in named
    )
    values = np.zeros((files[0].Rows, files[0].Columns), np.float32)
    values[40, 50] = 1
    frames = (1, 2, 3) if kind == "frames" else ()
    answer = classification(*files, frames=frames, images=images, findings=(finding(),))
    shown_on = replace(answer, evidence=EvidenceMap(label="pneumothorax", values=values, image=1))
    for index, file in enumerate(files):
        capture = shown_on.to_secondary_capture(file)
        assert errors_of(capture, tmp_path) == []
        reference = capture.SourceImageSequence[0]
        plain = answer if kind == "files" else replace(answer, provenance=provenance([file], frames=(2,)), images=())
        changed = (picture_of(capture, file) != picture_of(plain.to_secondary_capture(file), file)).any(axis=-1)
        is_its_own = kind == "frames" or index == 1
        assert np.argwhere(changed).tolist() == ([[40, 50]] if is_its_own else [])
        assert reference.get("ReferencedFrameNumber") == (2 if kind == "frames" else None)


@pytest.mark.parametrize("value", ["YES", "NO", None])
def test_burned_in_annotation_is_the_sources(value: str | None, tmp_path: Path) -> None:
    file = generated("chest_xray", BurnedInAnnotation=value)
    capture = classification(file).to_secondary_capture(file)
    assert capture.get("BurnedInAnnotation") == value
    assert errors_of(capture, tmp_path) == []


def test_lossy_compression_and_laterality_are_told_on(tmp_path: Path) -> None:
    file = generated("chest_xray", LossyImageCompression="01", LossyImageCompressionRatio="10", Laterality="R")
    file.LossyImageCompressionMethod = "ISO_10918_1"
    capture = classification(file).to_secondary_capture(file)
    assert (capture.LossyImageCompression, capture.LossyImageCompressionRatio, capture.Laterality) == ("01", 10, "R")
    assert errors_of(capture, tmp_path) == []


@pytest.mark.parametrize(
    "broken", ["ConversionType", "PhotometricInterpretation", "StudyInstanceUID", "PatientOrientation"]
)
def test_dciodvfy_finds_what_is_broken(broken: str, tmp_path: Path) -> None:
    file = generated("chest_xray")
    capture = classification(file).to_secondary_capture(file)
    assert errors_of(capture, tmp_path) == []
    del capture[broken]
    assert errors_of(capture, tmp_path)


def test_a_map_of_another_size_is_refused() -> None:
    file = generated("ct_lesion")
    with pytest.raises(InputError, match="not of the source's size"):
        segmentation(drawn(50, 60), file).to_secondary_capture(file)


def test_a_recording_is_no_picture() -> None:
    file = generated("ecg_rhythm")
    with pytest.raises((InputError, OutOfScopeError)):
        classification(file).to_secondary_capture(file)
