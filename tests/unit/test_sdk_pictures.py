"""PNG and JPEG for those who have no DICOM, and what is neither."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import pytest
from support.datasets import TEST_FILES
from support.sdk_contracts import WAVEFORM, contract

from radserve import _codec
from radserve.contracts import EveryImage, FileWindow, FixedWindow, ImageInput, PercentileWindow, Policy, WholeVolume
from radserve.errors import DecodeError, InputError, OutOfScopeError
from radserve.pictures import read_picture

if TYPE_CHECKING:
    from pathlib import Path

GREY = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
RGB = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)


def encoded(pixels: Any, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = PIL.Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(buffer, kind, **options)
    return buffer.getvalue()


def described(**changed: Any) -> ImageInput:
    standard: dict[str, Any] = {"modalities": ("DX",), "rows": 4, "columns": 6, "window": FileWindow()}
    return ImageInput(**{**standard, **changed})


def wire(source: Any, **changed: Any) -> Any:
    return _codec.prepare(contract(described(**changed)), source).inputs["PIXELS"][0]


def test_grey_pictures_span_their_whole_range() -> None:
    np.testing.assert_array_equal(wire(encoded(GREY))[..., 0], GREY)
    deep = GREY.astype(np.uint16) * 257
    np.testing.assert_array_equal(wire(encoded(deep))[..., 0], GREY)
    np.testing.assert_array_equal(wire(encoded(deep), wire_dtype="UINT16")[..., 0], deep)


def test_colour_stays_colour() -> None:
    np.testing.assert_array_equal(wire(encoded(RGB), photometric="RGB"), RGB)
    with pytest.raises(OutOfScopeError, match="colour"):
        wire(encoded(RGB))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_grey_picture_is_grey_however_it_was_saved(mode: str) -> None:
    np.testing.assert_array_equal(wire(encoded(GREY, mode=mode))[..., 0], GREY)
    np.testing.assert_array_equal(wire(encoded(GREY, mode=mode), photometric="RGB"), np.stack([GREY] * 3, axis=-1))
    with pytest.raises(OutOfScopeError, match="HU"):
        wire(encoded(GREY, mode=mode), window=FixedWindow(center=40, width=400))


def test_a_palette_and_an_opaque_alpha_are_colour() -> None:
    np.testing.assert_array_equal(read_picture(encoded(RGB, mode="RGBA")).values, RGB)
    assert read_picture(encoded(RGB, mode="P")).values.shape == (4, 6, 3)


def test_jpeg_is_recognised_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "chest.dcm"
    path.write_bytes(encoded(GREY, "JPEG", quality=100))
    assert np.abs(wire(path)[..., 0].astype(int) - GREY).max() <= 3


def test_exifs_orientation_is_applied() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show it
    turned = read_picture(encoded(GREY, exif=exif))
    np.testing.assert_array_equal(turned.values, np.rot90(GREY, -1))


def test_percentiles_are_those_of_the_picture() -> None:
    found = wire(encoded(GREY // 4), window=PercentileWindow(lower=0, upper=100))
    assert (found.min(), found.max()) == (0, 255)


def test_a_picture_has_no_modality_values() -> None:
    with pytest.raises(OutOfScopeError, match="HU"):
        wire(encoded(GREY), window=FixedWindow(center=40, width=400))


def test_a_client_that_refuses_burned_in_text_takes_no_picture() -> None:
    with pytest.raises(OutOfScopeError, match="burned-in"):
        _codec.prepare(contract(described()), encoded(GREY), burned_in=Policy.REFUSE)


def test_a_picture_is_a_study_of_one_image_but_no_volume() -> None:
    prepared = _codec.prepare(contract(described(study=EveryImage())), encoded(GREY))
    assert prepared.images == ((None, None),)
    with pytest.raises(InputError, match="whole volumes"):
        _codec.prepare(contract(described(study=WholeVolume(slices=4))), encoded(GREY))


def _animated() -> bytes:
    buffer = io.BytesIO()
    frames = [PIL.Image.fromarray(GREY), PIL.Image.fromarray(GREY[::-1])]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _huge(rows: int, columns: int) -> bytes:
    """A PNG that claims a size and holds nothing of it."""
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (_animated(), "animated"),
        (encoded(np.dstack([RGB, GREY])), "transparent"),
        (encoded(GREY, mode="1"), "neither grey nor RGB"),
        (encoded(RGB, "JPEG", mode="CMYK"), "neither grey nor RGB"),
        (encoded(GREY)[:-20], "damaged"),
        (_huge(4, 6), "damaged"),
        (_huge(9000, 9000), "64 million"),
        (_huge(2**30, 2**30), "PNG or JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG or JPEG"),
        (b"\xff\xd8\xff\xe0", "PNG or JPEG"),
        (b"GIF89a" + bytes(600), "PNG or JPEG"),
    ],
)
def test_what_is_no_picture_of_one_image_is_refused(content: bytes, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_picture(content)


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_a_picture_cut_anywhere_is_refused(cut: int) -> None:
    content = encoded(np.random.default_rng(0).integers(0, 255, (8, 8)).astype(np.uint8))
    with pytest.raises(InputError):
        read_picture(content[:cut])


def _nifti(magic: bytes) -> bytes:
    header = bytearray(352)
    header[:4] = struct.pack("<i", 348)
    header[344:348] = magic
    return bytes(header) + bytes(100)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("magic", [b"n+1\0", b"ni1\0"])
def test_nifti_is_refused_by_its_name(magic: bytes, packed: bool, tmp_path: Path) -> None:  # noqa: FBT001 - pytest's parameter
    content = gzip.compress(_nifti(magic)) if packed else _nifti(magic)
    path = tmp_path / "brain.nii.gz"
    path.write_bytes(content)
    for source in (content, path, str(path)):
        with pytest.raises(InputError, match="NIfTI is out of scope"):
            _codec.prepare(contract(described()), source)


@pytest.mark.parametrize("source", [b"", b"\x1f\x8b", b"\x1f\x8b" + bytes(50), b"text" * 200])
def test_what_is_neither_is_still_no_dicom_file(source: bytes) -> None:
    with pytest.raises(DecodeError, match="not a DICOM file"):
        _codec.prepare(contract(described()), source)


def test_a_model_of_waveforms_takes_no_picture() -> None:
    with pytest.raises(DecodeError, match="not a DICOM file"):
        _codec.prepare(contract(WAVEFORM), encoded(GREY))


def test_dicom_is_still_dicom() -> None:
    found = _codec.prepare(contract(), TEST_FILES / "CT_small.dcm")
    assert found.sop_instance_uids
    assert found.geometry is not None


@pytest.mark.parametrize("source", ["/nowhere/PAT^ANN.png", "/dev/zero", "\0"])
def test_a_path_is_not_told(source: str) -> None:
    with pytest.raises(InputError) as caught:
        read_picture(source)
    assert "ANN" not in str(caught.value)
