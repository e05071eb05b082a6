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
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from support.datasets import TEST_FILES, compressed, first_frame, make, to_bytes
from support.figures import tell
from support.mutations import measure, measure_files

from radserve.dicom import read_image
from radserve.errors import DicomError, InputError, RadserveError
from radserve.sources import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.mutations import Measured

SECONDS = 5
GIB = 2**30
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)


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
    tell(largest_bytes=max(measured.largest_bytes, measured.decoder_bytes), slowest_s=measured.slowest_s)
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
