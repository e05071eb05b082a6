"""Frames of encapsulated pixel data: found where they are, refused where the file lies about them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from support.datasets import TEST_FILES, compressed, first_frame, make
from support.mutations import attempt

from radserve.dicom import _fragments, read_image
from radserve.dicom._codestream import check_codestream
from radserve.dicom._packbits import decode_rle
from radserve.errors import DecodeError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset

STARTS_OF_FRAME = (b"\xff\xc0", b"\xff\xc1", b"\xff\xc3", b"\xff\xf7")
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
RLE_FRAME = first_frame("MR_small_RLE.dcm")[1]
JPEG_2000_FRAME = first_frame("MR_small_jp2klossless.dcm")[1]


def two_frames(**attributes: Any) -> Dataset:
    return compressed(
        JPEG2000Lossless,
        *[JPEG_2000_FRAME] * 2,
        **{"Rows": 64, "Columns": 64, "NumberOfFrames": 2, "PixelRepresentation": 1, **attributes},
    )


def test_frames_are_found_by_either_offset_table_or_by_none() -> None:
    expected = read_image(TEST_FILES / "MR_small_jp2klossless.dcm").values
    pixels, offsets, lengths = encapsulate_extended([JPEG_2000_FRAME] * 2)
    split = encapsulate([JPEG_2000_FRAME] * 2, fragments_per_frame=3)
    unmarked = encapsulate([JPEG_2000_FRAME] * 2, fragments_per_frame=3, has_bot=False)
    extended = {"PixelData": pixels, "ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    for attributes in ({}, extended, {"PixelData": split}, {"PixelData": unmarked}):
        for index in (0, 1):
            image = read_image(two_frames(**attributes, Modality="MR"), frame=index)
            np.testing.assert_array_equal(image.values, expected)


@pytest.mark.parametrize(
    "attributes",
    [
        {"NumberOfFrames": 1},
        {"NumberOfFrames": 3},
        {"NumberOfFrames": 2**31 - 1},
        {"PixelData": encapsulate([JPEG_2000_FRAME] * 3, has_bot=False)},
        {"PixelData": encapsulate([JPEG_2000_FRAME[:-2]] * 3, has_bot=False)},
        {"PixelData": encapsulate([b"\0\0"] * 2)},
        {"PixelData": struct.pack("<HHIII", 0xFFFE, 0xE000, 8, 0, 4) + encapsulate([JPEG_2000_FRAME] * 2)[16:]},
        {"PixelData": struct.pack("<HHIII", 0xFFFE, 0xE000, 8, 8, 0) + encapsulate([JPEG_2000_FRAME] * 2)[16:]},
        {"ExtendedOffsetTable": struct.pack("<QQ", 0, 2**60), "ExtendedOffsetTableLengths": bytes(16)},
        {"PixelData": JPEG_2000_FRAME},
        {"PixelData": ITEM},
        {"PixelData": ITEM + struct.pack("<HHI", 0xFFFE, 0xE000, 2**31) + bytes(8)},
    ],
)
def test_frames_that_lie_are_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        read_image(two_frames(**attributes), frame=0)


def test_a_second_image_in_a_single_frame_file_is_told() -> None:
    frame = first_frame("SC_rgb_jpeg_dcmtk.dcm")[1]
    dataset = pydicom.dcmread(TEST_FILES / "SC_rgb_jpeg_dcmtk.dcm")
    dataset.PixelData = encapsulate([frame, frame], has_bot=False)
    with pytest.raises(DecodeError, match="NumberOfFrames"):
        read_image(dataset)


@pytest.mark.parametrize(
    "damage",
    [
        lambda frame: frame[:40],
        lambda frame: frame[:-100],
        lambda frame: struct.pack("<I", 3) + frame[4:],
        lambda frame: struct.pack("<II", 2, 60) + frame[8:],
        lambda frame: struct.pack("<III", 2, 64, 2**31) + frame[12:],
    ],
)
def test_damaged_rle_is_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(DecodeError):
        read_image(compressed(RLELossless, damage(RLE_FRAME), Rows=64, Columns=64))


@pytest.mark.parametrize("name", ["examples_jpeg2k.dcm", "JPEGLSNearLossless_16.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_a_frame_without_its_end_is_refused(name: str) -> None:
    dataset, frame = first_frame(name)
    dataset.PixelData = encapsulate([frame[: len(frame) * 9 // 10]])
    with pytest.raises(DecodeError, match="no end"):
        read_image(dataset)


def test_more_fragments_than_can_be_are_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fragments, "MAX_FRAGMENTS", 2)
    with pytest.raises(DecodeError, match="more than 2 fragments"):
        read_image(two_frames(), frame=0)


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("MR_small_jp2klossless.dcm", JPEG2000Lossless),
        ("MR_small_jpeg_ls_lossless.dcm", JPEGLSLossless),
        ("SC_rgb_jpeg_dcmtk.dcm", JPEGBaseline8Bit),
        ("SC_rgb_jpeg_gdcm.dcm", JPEGLosslessSV1),
    ],
)
def test_a_frames_own_header_must_agree_with_the_data_set(name: str, syntax: UID) -> None:
    dataset, frame = first_frame(name)
    told = {"rows": dataset.Rows, "columns": dataset.Columns, "samples": dataset.SamplesPerPixel}
    assert check_codestream(frame, syntax, **told).precision in {8, 16}
    for attribute, value in told.items():
        with pytest.raises(DecodeError, match="contradicts Rows, Columns or SamplesPerPixel"):
            check_codestream(frame, syntax, **{**told, attribute: value + 1})
    if syntax != JPEG2000Lossless:
        start = next(place for place in range(2, 2000) if frame[place : place + 2] in STARTS_OF_FRAME)
        segment = frame[start : start + 2 + int.from_bytes(frame[start + 2 : start + 4], "big")]
        with pytest.raises(DecodeError, match="no header of the transfer syntax's kind"):
            check_codestream(frame[:start] + segment + frame[start:], syntax, **told)
        progressive = frame[: start + 1] + b"\xc2" + frame[start + 2 :]
        with pytest.raises(DecodeError, match="no header of the transfer syntax's kind"):
            check_codestream(progressive, syntax, **told)


@settings(max_examples=300)
@given(st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xc3\0\x0b", b"\xff\x4f\xff\x51"]))
def test_no_codestream_header_does_more_than_be_refused(data: bytes, start: bytes) -> None:
    for syntax in (JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless):
        with pytest.raises(DecodeError):
            check_codestream(start + data, syntax, rows=65536, columns=65536, samples=5)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 3), st.lists(st.integers(0, 300), min_size=15, max_size=15))
def test_rle_fills_the_frame_or_is_refused(data: bytes, count: int, offsets: list[int]) -> None:
    try:
        decoded = decode_rle(struct.pack("<16I", count, *offsets) + data, pixels=16, samples=1, bytes_per_sample=2)
    except DecodeError:
        return
    assert len(decoded) == 32


@settings(max_examples=200)
@given(st.lists(st.integers(0, 40), max_size=6), st.integers(1, 4), st.binary())
def test_fragments_of_any_kind_give_frames_or_a_typed_error(lengths: list[int], frames: int, tail: bytes) -> None:
    items = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, length) + bytes(length) for length in lengths)
    dataset = two_frames(PixelData=items + tail, NumberOfFrames=frames)
    assert attempt(lambda: read_image(dataset, frame=0)) in {"DecodeError", "MissingAttributeError"}


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "Rows",
                "Columns",
                "SamplesPerPixel",
                "BitsAllocated",
                "BitsStored",
                "HighBit",
                "PixelRepresentation",
                "PlanarConfiguration",
                "NumberOfFrames",
                "RescaleSlope",
                "WindowCenter",
                "WindowWidth",
            ]
        ),
        st.one_of(st.none(), st.integers(-1, 70000), st.integers(0, 17)),
        max_size=4,
    ),
    st.sampled_from(["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR", "HSV"]),
)
@pytest.mark.filterwarnings("ignore")
def test_attributes_of_any_value_give_an_image_or_a_typed_error(
    attributes: dict[str, int | None], photometric: str
) -> None:
    dataset = make(PhotometricInterpretation=photometric, **attributes)
    try:
        image = read_image(dataset, frame=0)
    except InputError:
        return
    assert image.values.shape[:2] == (dataset.Rows, dataset.Columns)
    assert np.isfinite(image.values).all()
