"""Reading DICOM files: right values, or the right typed error."""

from __future__ import annotations

import io
import struct
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from support.datasets import DATA, SHIPPED, TEST_FILES, attempt, item, make, to_bytes

from radserve.dicom import open_dicom, read_image, read_waveform
from radserve.errors import (
    DecodeError,
    DicomError,
    InputError,
    MissingAttributeError,
    OutOfScopeError,
    RadserveError,
)
from radserve.sources import VoiLut, VoiWindow

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(DATA)))
def test_every_file_that_pydicom_ships_is_decoded_or_refused_in_all_its_frames(path: Path) -> None:
    outcomes = [attempt(read_image, path), attempt(read_waveform, path)]
    outcomes += [attempt(partial(read_image, frame=index), path) for index in range(_frames(path))]
    for outcome in outcomes:
        if isinstance(outcome, RadserveError):
            assert isinstance(outcome, DicomError | OutOfScopeError)
            assert outcome.__cause__ is None
            assert outcome.__context__ is None
        else:
            assert outcome is not None


def _frames(path: Path) -> int:
    """Of a multi-frame file; 0 of any other."""
    try:
        frames = int(pydicom.dcmread(path, stop_before_pixels=True).get("NumberOfFrames") or 1)
    except Exception:  # noqa: BLE001 - no DICOM file, or a broken one
        return 0
    return frames if frames > 1 else 0


def test_the_frames_of_every_multi_frame_image_are_decoded() -> None:
    several = {path.name: _frames(path) for path in SHIPPED if _frames(path)}
    assert sum(several.values()) >= 80
    for path in SHIPPED:
        for index in range(several.get(path.name, 0)):
            assert read_image(path, frame=index).frame_number == index + 1


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("MR_truncated.dcm", DecodeError),
        ("rtplan_truncated.dcm", DecodeError),
        ("zipMR.gz", DecodeError),
        ("no_meta.dcm", DecodeError),
        ("badVR.dcm", DecodeError),
        ("JPEG2000-embedded-sequence-delimiter.dcm", DecodeError),
        ("test-SR.dcm", MissingAttributeError),
        ("meta_missing_tsyntax.dcm", MissingAttributeError),
        ("rtdose.dcm", OutOfScopeError),
    ],
)
def test_a_file_that_is_no_image_to_read_gives_the_error_that_fits(name: str, error: type[RadserveError]) -> None:
    with pytest.raises(error):
        read_image(TEST_FILES / name)


def test_a_deflated_file_is_read() -> None:
    image = read_image(TEST_FILES / "image_dfl.dcm")
    np.testing.assert_array_equal(image.values, pydicom.dcmread(TEST_FILES / "image_dfl.dcm").pixel_array)


def test_what_a_file_was_sent_with_is_passed_over() -> None:
    whole = to_bytes(make())
    start = 132 + 12 + pydicom.dcmread(io.BytesIO(whole)).file_meta.FileMetaInformationGroupLength
    command = struct.pack("<HHIH", 0, 0x0100, 2, 1)  # implicit, whatever the transfer syntax (PS3.7 6.3.1)
    image = read_image(whole[:start] + command + whole[start:])
    np.testing.assert_array_equal(image.values, read_image(whole).values)
    command = struct.pack("<HHI", 0, 0x0100, 2**20)
    with pytest.raises(DecodeError, match="truncated"):
        open_dicom(whole[:start] + command + whole[start:])


@pytest.mark.parametrize("name", ["examples_palette.dcm", "SC_ybr_full_422_uncompressed.dcm", "examples_jpeg2k.dcm"])
def test_palette_and_ybr_become_rgb(name: str) -> None:
    image = read_image(TEST_FILES / name)
    assert image.photometric_interpretation == "RGB"
    assert image.values.dtype == np.uint8
    assert image.values.shape[2] == 3


def test_16_bit_rgb_is_scaled_to_8_bits() -> None:
    wide = read_image(TEST_FILES / "SC_rgb_rle_16bit.dcm").values.astype(int)
    narrow = read_image(TEST_FILES / "SC_rgb_rle.dcm").values.astype(int)
    assert np.abs(wide - narrow).max() <= 1


def test_a_frame_is_chosen_counting_from_0() -> None:
    path = TEST_FILES / "rtdose.dcm"
    stored = pydicom.dcmread(path)
    expected = stored.pixel_array[3] * float(stored.get("RescaleSlope", 1))
    np.testing.assert_allclose(read_image(path, frame=3).values, expected, rtol=1e-6)


@pytest.mark.parametrize("frame", [-1, 15, True, 1.0])
def test_a_frame_that_is_not_there_is_refused(frame: int) -> None:
    with pytest.raises(InputError, match="holds 15"):
        read_image(TEST_FILES / "rtdose.dcm", frame=frame)


@pytest.mark.parametrize(("slope", "intercept"), [(2, -1024), (1, -1024), (2, 0), (-0.5, 0), (1, 0)])
def test_rescale_gives_hounsfield_units(slope: float, intercept: float) -> None:
    image = read_image(make(RescaleSlope=slope, RescaleIntercept=intercept))
    assert image.values[0, :3].tolist() == [intercept, slope + intercept, 2 * slope + intercept]


@pytest.mark.parametrize("sign", [0, 1])
def test_rescale_of_32_bits_loses_nothing_on_the_way(sign: int) -> None:
    data = (np.arange(16) + 2**30).astype("<i4").tobytes()
    bits = {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31, "PixelRepresentation": sign}
    image = read_image(make(PixelData=data, RescaleIntercept=-(2**30), **bits))
    assert image.values.ravel().tolist() == list(range(16))


def test_a_modality_lut_is_applied() -> None:
    lut = item(LUTDescriptor=[3, 1, 16], LUTData=[100, 200, 300], ModalityLUTType="US")
    image = read_image(make(ModalityLUTSequence=[lut]))
    assert image.values.ravel()[:5].tolist() == [100, 100, 200, 300, 300]
    floats = np.arange(16, dtype="<f4").tobytes()
    with pytest.raises(DecodeError, match="ModalityLUTSequence"):
        read_image(make(PixelData=None, FloatPixelData=floats, BitsAllocated=32, ModalityLUTSequence=[lut]))


def test_stored_bits_beyond_bits_stored_are_ignored() -> None:
    for beyond in (0xF000, np.array([0x1000] + [0] * 15, "<u2")):
        data = (np.arange(16, dtype="<u2") | beyond).tobytes()
        image = read_image(make(PixelData=data, BitsStored=12, HighBit=11))
        assert image.values.ravel().tolist() == list(range(16))


def test_signed_12_bit_values_keep_their_sign() -> None:
    data = (np.arange(-8, 8, dtype="<i2") & 0x0FFF).astype("<u2").tobytes()
    image = read_image(make(PixelData=data, BitsStored=12, HighBit=11, PixelRepresentation=1))
    assert image.values.ravel().tolist() == list(range(-8, 8))
    data = (np.arange(16, dtype="<u2") | 0x8000).tobytes()  # none above the highest, all below the lowest
    image = read_image(make(PixelData=data, BitsStored=12, HighBit=11, PixelRepresentation=1))
    assert image.values.ravel().tolist() == list(range(16))


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "RGB"])
def test_a_callers_buffer_may_be_used_again(photometric: str) -> None:
    standard: dict[str, Any] = {"PhotometricInterpretation": photometric, "RescaleIntercept": 3}
    if photometric == "RGB":
        standard |= {"Columns": 2, "SamplesPerPixel": 3, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    buffer = bytearray(range(32))
    image = read_image(make(PixelData=memoryview(buffer), PlanarConfiguration=0, **standard))
    pixels = image.pixels.copy()
    buffer[:] = bytes(32)
    np.testing.assert_array_equal(image.pixels, pixels)


@pytest.mark.filterwarnings("ignore:A value of type 'int' cannot be assigned to a tag with VR")
def test_pixels_that_pydicom_took_for_numbers_are_refused_for_what_they_are() -> None:
    with pytest.raises(DecodeError, match=r"PixelData is a MultiValue: set it to bytes\(\.\.\.\)"):
        read_image(make(PixelData=bytearray(32)))


def test_voi_luts_come_before_windows() -> None:
    lut = item(LUTDescriptor=[2, 0, 8], LUTData=[0, 255])
    image = read_image(make(VOILUTSequence=[lut], WindowCenter=[40, 50], WindowWidth=[400, 80]))
    assert isinstance(image.windows[0], VoiLut)
    assert image.windows[1:] == (VoiWindow(center=40, width=400), VoiWindow(center=50, width=80))


def test_enhanced_files_are_read_from_their_functional_groups() -> None:
    def frame(slope: float) -> Dataset:
        return item(PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=0)])

    shared = item(
        FrameVOILUTSequence=[item(WindowCenter=40, WindowWidth=400)],
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.25])],
    )
    dataset = make(
        NumberOfFrames=2,
        PixelData=np.arange(32, dtype="<u2").tobytes(),
        PerFrameFunctionalGroupsSequence=[frame(1), frame(3)],
        SharedFunctionalGroupsSequence=[shared],
    )
    image = read_image(dataset, frame=1)
    assert image.values[0, 0] == 48
    assert image.windows == (VoiWindow(center=40, width=400),)
    assert image.pixel_spacing_mm == (0.5, 0.25)


def test_each_frame_has_its_own_window() -> None:
    windows = [VoiWindow(center=40, width=400), VoiWindow(center=-600, width=1500)]
    groups = [item(FrameVOILUTSequence=[item(WindowCenter=each.center, WindowWidth=each.width)]) for each in windows]
    dataset = make(
        NumberOfFrames=2,
        PixelData=np.arange(32, dtype="<u2").tobytes(),
        PerFrameFunctionalGroupsSequence=groups,
        WindowCenter=1,
        WindowWidth=2,
    )
    assert [read_image(dataset, frame=index).windows for index in (0, 1)] == [(windows[0],), (windows[1],)]


@pytest.mark.parametrize(
    ("attributes", "years"),
    [
        ({"PatientAge": "045Y"}, 45),
        ({"PatientAge": "006M"}, 0.5),
        ({"PatientBirthDate": "20000601", "StudyDate": "20200531"}, 19),
        ({"PatientBirthDate": "20000601", "StudyDate": "20200601"}, 20),
        ({"PatientBirthDate": "20000601"}, None),
        ({}, None),
    ],
)
def test_the_age_is_told_or_counted(attributes: dict[str, str], years: float | None) -> None:
    assert open_dicom(make(**attributes)).scope.patient_age_years == years


def test_the_scope_is_read_without_decoding() -> None:
    assert open_dicom(make(PixelData=b"")).scope.modality == "CT"


@pytest.mark.parametrize(
    "attributes",
    [
        {"Rows": 65535, "Columns": 65535},
        {"Rows": 5},
        {"NumberOfFrames": 10**6},
        {"BitsAllocated": 13},
        {"SamplesPerPixel": 3},
        {"PhotometricInterpretation": "HSV"},
        {"PhotometricInterpretation": None},
        {"PixelData": b"\0"},
        {"RescaleSlope": "1e38", "RescaleIntercept": "1e38"},
    ],
)
def test_attributes_that_contradict_the_data_are_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(DicomError):
        read_image(make(**attributes), frame=0)


def test_dimensions_that_no_frame_can_have_are_refused_before_decoding() -> None:
    dataset = pydicom.dcmread(TEST_FILES / "MR_small_RLE.dcm")
    dataset.Rows = dataset.Columns = 65535
    with pytest.raises(DecodeError, match="million samples"):
        read_image(dataset)
