"""Files made to harm: each ends as an image or a typed error, in bounded time and memory, and the caller lives."""

from __future__ import annotations

import io
import struct
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from support.datasets import make
from support.mutations import TEST_FILES, attempt, measure, measure_files

from radserve.dicom import read_image
from radserve.dicom._codestream import check_codestream
from radserve.dicom._packbits import decode_rle
from radserve.errors import DecodeError, DicomError, InputError, RadserveError
from radserve.sources import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydicom.dataset import Dataset
    from support.mutations import Measured

SECONDS = 5
GIB = 2**30
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)


def to_bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def first_frame(name: str) -> tuple[Dataset, bytes]:
    dataset = pydicom.dcmread(TEST_FILES / name)
    return dataset, next(generate_frames(dataset.PixelData, number_of_frames=1))


def compressed(syntax: UID, *frames: bytes, **attributes: Any) -> Dataset:
    """A 16 x 16 image in one fragment a frame."""
    dataset = make(**{"Rows": 16, "Columns": 16, "PixelData": encapsulate(list(frames)), **attributes})
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


@pytest.mark.parametrize("first", [0, 150])
def test_some_mutants_end_in_bounds(first: int) -> None:
    assert_bounded(first, first + 150)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(0, 10_000, 1_000))
def test_ten_thousand_mutants_end_in_bounds(first: int) -> None:
    assert_bounded(first, first + 1_000)


def assert_bounded(first: int, last: int) -> None:
    measured = measure(first, last)
    assert sum(measured.outcomes.values()) == last - first
    assert measured.outcomes["read"] > 0
    assert measured.slowest_s < SECONDS, measured.slowest
    assert max(measured.largest_bytes, measured.decoder_bytes) < GIB
    assert measured.decoder_bytes > 0, "no mutant has reached a decoder process"


def claiming(name: str, marker: bytes, layout: str, places: tuple[int, ...], size: int) -> bytes:
    """A real frame whose own header says another size."""
    frame = bytearray(first_frame(name)[1])
    start = frame.index(marker)
    for place in places:
        struct.pack_into(layout, frame, start + place, size, size)
    return bytes(frame)


CLAIMS: dict[UID, Callable[[int], bytes]] = {
    JPEG2000Lossless: lambda size: claiming("MR_small_jp2klossless.dcm", b"\xff\x51", ">II", (6, 22), size),
    JPEGLSLossless: lambda size: claiming("MR_small_jpeg_ls_lossless.dcm", b"\xff\xf7", ">HH", (5,), size),
    JPEGBaseline8Bit: lambda size: claiming("SC_rgb_jpeg_dcmtk.dcm", b"\xff\xc0", ">HH", (5,), size),
    JPEGLosslessSV1: lambda size: claiming("SC_rgb_jpeg_gdcm.dcm", b"\xff\xc3", ">HH", (5,), size),
}


def claim(syntax: UID, frame_size: int, **attributes: Any) -> bytes:
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, **colour}
    of = eight if syntax in (JPEGBaseline8Bit, JPEGLosslessSV1) else {}
    return to_bytes(compressed(syntax, CLAIMS[syntax](frame_size), **{**of, **attributes}))


def followed_by(extra: bytes) -> bytes:
    """A whole file with elements behind its pixels."""
    return to_bytes(make()) + extra


def implicit(*elements: bytes) -> bytes:
    """A whole file in implicit VR, with elements behind its pixels."""
    dataset = make()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.set_original_encoding(is_implicit_vr=True, is_little_endian=True)
    return to_bytes(dataset) + b"".join(elements)


def element(tag: int, value: bytes, vr: bytes = b"") -> bytes:
    group, number = divmod(tag, 2**16)
    if vr:
        return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack("<HHI", group, number, len(value)) + value


def deflated(inflated_bytes: int) -> bytes:
    dataset = make()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    head = to_bytes(dataset)
    meta_end = 132 + 12 + pydicom.dcmread(io.BytesIO(head)).file_meta.FileMetaInformationGroupLength
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = bytes(2**20)
    return head[:meta_end] + b"".join(packer.compress(block) for _ in range(inflated_bytes >> 20)) + packer.flush()


def rle_bomb() -> bytes:
    run = bytes([129, 0]) * 2**22  # 512 MiB
    header = struct.pack("<16I", 2, 64, 64 + len(run), *[0] * 13)
    return to_bytes(compressed(RLELossless, header + run + run))


def nested(depth: int) -> bytes:
    sequence = struct.pack("<HH2sHI", 0x7FE1, 0x10, b"SQ", 0, 0xFFFFFFFF)
    return followed_by((sequence + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * depth)


def many_scans() -> bytes:
    """Scans of no length: each costs libjpeg a pass over the whole frame."""
    frame = claiming("SC_rgb_jpeg_dcmtk.dcm", b"\xff\xc0", ">HH", (5,), 4096)
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00"
    start = frame.index(b"\xff\xda")
    frame = frame[:start] + scan * 20_000 + b"\xff\xd9"
    attributes = {"Rows": 4096, "Columns": 4096, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL", "PlanarConfiguration": 0}
    return to_bytes(compressed(JPEGBaseline8Bit, frame, **attributes, **colour))


def two_sizes() -> bytes:
    """A second start of frame: Pillow would believe it before libjpeg looks at it."""
    frame = claiming("SC_rgb_jpeg_dcmtk.dcm", b"\xff\xc0", ">HH", (5,), 16)
    start = frame.index(b"\xff\xc0")
    segment = bytearray(frame[start : start + 2 + int.from_bytes(frame[start + 2 : start + 4], "big")])
    struct.pack_into(">HH", segment, 5, 65000, 65000)
    scan = frame.index(b"\xff\xda")
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL", "PlanarConfiguration": 0}
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    return to_bytes(compressed(JPEGBaseline8Bit, frame[:scan] + segment + frame[scan:], **eight, **colour))


def fragments(count: int) -> bytes:
    dataset = compressed(JPEG2000Lossless, b"\0\0", NumberOfFrames=2)
    dataset.PixelData = dataset.PixelData + ITEM * count
    return to_bytes(dataset)


def many_elements(count: int) -> bytes:
    tags = (0x7FE30010 + number // 60_000 * 2**17 + number % 60_000 for number in range(count))
    return b"".join(struct.pack("<HH2sH", *divmod(tag, 2**16), b"LO", 0) for tag in tags)


BOMBS: dict[str, Callable[[], bytes]] = {
    "deflate": lambda: deflated(300 * 2**20),
    "RLE": rle_bomb,
    "65535 x 65535, native": lambda: to_bytes(make(Rows=65535, Columns=65535)),
    "65535 x 65535, RLE": lambda: to_bytes(compressed(RLELossless, bytes(64), Rows=65535, Columns=65535)),
    **{f"65535 x 65535 in the codestream, {syntax.name}": partial(claim, syntax, 65535) for syntax in CLAIMS},
    **{
        f"65535 x 65535 in both, {syntax.name}": partial(claim, syntax, 65535, Rows=65535, Columns=65535)
        for syntax in CLAIMS
    },
    **{
        f"as large as a frame may be, {syntax.name}": partial(claim, syntax, 4700, Rows=4700, Columns=4700)
        for syntax in CLAIMS
    },
    "8192 x 8192 in both, JPEG 2000": lambda: claim(JPEG2000Lossless, 8192, Rows=8192, Columns=8192),
    "8192 x 8192 in both, JPEG-LS": lambda: claim(JPEGLSLossless, 8192, Rows=8192, Columns=8192),
    "scans without end": many_scans,
    "two sizes in one frame": two_sizes,
    "nested without end": lambda: nested(100_000),
    "a million elements": lambda: followed_by(many_elements(10**6)),
    "a million items": lambda: followed_by(element(0x7FE10010, ITEM * 10**6, b"SQ")),
    "a million items, parsed late": lambda: implicit(element(0x7FE10010, b""), element(0x52009230, ITEM * 10**6)),
    "a million fragments": lambda: fragments(10**6),
    "a million windows": lambda: implicit(element(0x00281050, b"1\\" * 10**6)),
    "a million character sets": lambda: implicit(element(0x00080005, b"\\" * 10**6)),
    "2147483647 frames": lambda: to_bytes(make(NumberOfFrames=2**31 - 1)),
    "2147483647 frames, encapsulated": lambda: to_bytes(
        compressed(JPEG2000Lossless, CLAIMS[JPEG2000Lossless](16), NumberOfFrames=2**31 - 1)
    ),
}


# Their frames are of the size they say, and damaged: some decoders make an image of that.
MAY_BE_READ = {f"as large as a frame may be, {syntax.name}" for syntax in (JPEG2000Lossless, JPEGBaseline8Bit)}


@pytest.fixture(scope="module")
def exploded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """What became of every bomb, read one after the other in one process that lives on."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = [folder / f"{number}.dcm" for number in range(len(BOMBS))]
    for path, bomb in zip(paths, BOMBS.values(), strict=True):
        path.write_bytes(bomb())
    return dict(zip(BOMBS, measure_files(paths), strict=True))


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_in_bounds(bomb: str, exploded: dict[str, Measured]) -> None:
    measured = exploded[bomb]
    refused = {"DecodeError", "OutOfScopeError"}
    assert set(measured.outcomes) <= refused | ({"read"} if bomb in MAY_BE_READ else set())
    assert measured.slowest_s < SECONDS
    assert max(measured.largest_bytes, measured.decoder_bytes) < GIB


def whole_and_cut(path: Path) -> Iterator[tuple[object, object]]:
    """The outcome of a file, and of each of its beginnings, by the KiB."""
    data = path.read_bytes()
    whole = outcome(data)
    for size in range(0, len(data), 1024):
        yield whole, outcome(data[:size])


def outcome(data: bytes) -> object:
    try:
        return read_image(data, frame=0)
    except RadserveError as error:
        return error


def assert_every_cut_is_refused(path: Path) -> None:
    for whole, cut in whole_and_cut(path):
        # What follows the data set in some files is padding: nothing is lost with it.
        if not isinstance(cut, DicomError | InputError):
            assert isinstance(whole, Image)
            assert isinstance(cut, Image)
            np.testing.assert_array_equal(cut.values, whole.values)


SHIPPED = sorted(path for path in TEST_FILES.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_RLE.dcm", "JPGExtended.dcm", "SC_rgb_jpeg_gdcm.dcm", "MR_small_jp2klossless.dcm"]
)
def test_a_file_cut_at_any_kib_is_refused(name: str) -> None:
    assert_every_cut_is_refused(TEST_FILES / name)


@pytest.mark.full
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(TEST_FILES)))
def test_every_shipped_file_cut_at_any_kib_is_refused(path: Path) -> None:
    assert_every_cut_is_refused(path)


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


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xc3\0\x0b", b"\xff\x4f\xff\x51"]))
def test_no_codestream_header_does_more_than_be_refused(data: bytes, start: bytes) -> None:
    for syntax in (JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless):
        with pytest.raises(DecodeError):
            check_codestream(start + data, syntax, rows=65536, columns=65536, samples=5)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3), st.lists(st.integers(0, 300), min_size=15, max_size=15))
def test_rle_fills_the_frame_or_is_refused(data: bytes, count: int, offsets: list[int]) -> None:
    try:
        decoded = decode_rle(struct.pack("<16I", count, *offsets) + data, pixels=16, samples=1, bytes_per_sample=2)
    except DecodeError:
        return
    assert len(decoded) == 32


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=6), st.integers(1, 4), st.binary())
def test_fragments_of_any_kind_give_frames_or_a_typed_error(lengths: list[int], frames: int, tail: bytes) -> None:
    items = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, length) + bytes(length) for length in lengths)
    dataset = two_frames(PixelData=items + tail, NumberOfFrames=frames)
    assert attempt(lambda: read_image(dataset, frame=0)) in {"DecodeError", "MissingAttributeError"}


@settings(max_examples=300, deadline=None)
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
