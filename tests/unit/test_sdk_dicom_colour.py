"""Palettes, lookup tables and colour samples in every form that the standard allows, held against dcmtk's dcmj2pnm."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless
from support.datasets import item, make
from support.dcmtk import difference, rendered, saved

from radserve.dicom import read_image
from radserve.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

ROWS, COLUMNS = np.mgrid[:64, :64]
INDICES = (2 * ROWS + COLUMNS).astype(np.uint8)
COLOURED = np.stack([INDICES, INDICES[::-1], INDICES.T], axis=-1)
COLOURED[:20, :20] = (255, 0, 0)


def picture(pixels: NDArray[np.uint8], **attributes: Any) -> Dataset:
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    standard = {
        "Modality": "OT",
        "Rows": 64,
        "Columns": 64,
        "SamplesPerPixel": samples,
        "PlanarConfiguration": 0 if samples > 1 else None,
        "PhotometricInterpretation": "RGB" if samples > 1 else "MONOCHROME2",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelData": pixels.tobytes(),
        "RescaleSlope": None,
        "RescaleIntercept": None,
    }
    return make(**{**standard, **attributes})


def coloured_by_palette(
    entries: int = 256, bits: int = 8, dtype: str = "u1", scale: int = 1, first: int = 0
) -> Dataset:
    """Indices 0 to 189, and entries that climb at another pace in each colour."""
    dataset = picture(INDICES, PhotometricInterpretation="PALETTE COLOR")
    for colour, pace in (("Red", 1), ("Green", 3), ("Blue", 7)):
        table = (np.arange(entries) * pace % 256 * scale).astype(dtype)
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [entries % 2**16, first, bits])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", table.tobytes() + b"\0" * (table.nbytes % 2))
    return dataset


def big_endian(path: Path) -> Path:
    swapped = path.with_name("big_endian.dcm")
    subprocess.run(["dcmconv", "+tb", str(path), str(swapped)], check=True)  # noqa: S603, S607 - dcmtk's
    return swapped


@pytest.mark.parametrize("swap", [lambda path: path, big_endian], ids=["little", "big"])
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"dtype": "<u2"},
        {"dtype": "<u2", "bits": 16, "scale": 256},
        {"dtype": "<u2", "bits": 12, "scale": 16},
        {"entries": 255},
        {"entries": 100, "first": 20},
    ],
    ids=["packed", "8 bits in 16", "16 bits", "12 bits", "odd", "first mapped"],
)
def test_a_palette_agrees_with_dcmtk(form: dict[str, Any], swap: Callable[[Path], Path], tmp_path: Path) -> None:
    path = swap(saved(coloured_by_palette(**form), tmp_path / "image.dcm"))
    assert difference(path, tmp_path / "picture.pnm") == [pytest.approx(0, abs=1)]


def test_a_palette_of_bytes_is_swapped_by_nobody(tmp_path: Path) -> None:
    dataset = coloured_by_palette()
    for colour in ("Red", "Green", "Blue"):
        dataset[f"{colour}PaletteColorLookupTableData"].VR = "OB"
    path = saved(dataset, tmp_path / "image.dcm")
    for each in (path, big_endian(path)):
        assert read_image(each).values[0, 60].tolist() == [60, 180, 164]


def test_entries_of_16_bits_described_as_8_are_not_cut() -> None:
    assert read_image(coloured_by_palette(dtype="<u2", scale=257)).values[0, 60].tolist() == [60, 180, 164]


def test_a_segmented_palette_is_expanded(tmp_path: Path) -> None:
    dataset = coloured_by_palette()
    for colour, table in (
        ("Red", [0, 2, 10, 20, 1, 254, 147]),
        ("Green", [0, 1, 0, 1, 255, 255]),
        ("Blue", [0, 1, 9, 1, 255, 9]),
    ):
        delattr(dataset, f"{colour}PaletteColorLookupTableData")
        segments = bytes(table) + b"\0" * (len(table) % 2)
        setattr(dataset, f"Segmented{colour}PaletteColorLookupTableData", segments)
    expected = [[10, 0, 9], [20, 1, 9], [20, 2, 9], [21, 3, 9]]  # red climbs by a half
    path = saved(dataset, tmp_path / "image.dcm")
    for each in (path, big_endian(path)):
        assert read_image(each).values[0, :4].tolist() == expected


@pytest.mark.parametrize(
    "segments",
    [[0, 1, 5, 2, 1, 0, 0, 0, 0, 0], [1, 255, 9, 0], [0, 255, 1, 1], [0, 0] * 50_000, [0, 1, 5, 1, 0, 9], [7, 7, 7, 7]],
    ids=["indirect", "begins with a line", "cut", "empty", "empty line", "unknown"],
)
def test_a_segmented_palette_that_cannot_be_expanded_is_refused(segments: list[int]) -> None:
    dataset = coloured_by_palette()
    del dataset.GreenPaletteColorLookupTableData
    dataset.SegmentedGreenPaletteColorLookupTableData = bytes(segments)
    with pytest.raises(DecodeError, match=r"segment|shorter"):
        read_image(dataset)


@pytest.mark.parametrize(
    "damage", [{"GreenPaletteColorLookupTableDescriptor": None}, {"BluePaletteColorLookupTableData": b"\0\1"}]
)
def test_a_palette_that_lacks_a_part_is_refused(damage: dict[str, Any]) -> None:
    dataset = coloured_by_palette()
    for keyword, value in damage.items():
        setattr(dataset, keyword, value)
    with pytest.raises(DecodeError, match="PaletteColorLookupTable"):
        read_image(dataset)


@pytest.mark.parametrize("swap", [lambda path: path, big_endian], ids=["little", "big"])
@pytest.mark.parametrize("dtype", ["u1", "<u2"])
def test_a_voi_lut_of_8_bits_agrees_with_dcmtk(dtype: str, swap: Callable[[Path], Path], tmp_path: Path) -> None:
    table = item(LUTDescriptor=[256, 0, 8])
    table.add_new("LUTData", "OW", (np.arange(256) * 7 % 256).astype(dtype).tobytes())
    path = swap(saved(picture(INDICES, VOILUTSequence=[table]), tmp_path / "image.dcm"))
    assert difference(path, tmp_path / "picture.pnm") == [pytest.approx(0, abs=1)]


def jpeg(*arguments: str) -> Callable[[Path, Path], None]:
    def compress(plain: Path, compressed: Path) -> None:
        subprocess.run([*arguments, str(plain), str(compressed)], check=True)  # noqa: S603 - dcmtk's

    return compress


def jpeg_2000(plain: Path, compressed: Path) -> None:
    dataset = pydicom.dcmread(plain)
    dataset.compress(JPEG2000Lossless)
    dataset.save_as(compressed)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize(
    ("compress", "most"),
    [
        (jpeg("dcmcjpeg", "+eb", "+s4"), 16),
        (jpeg("dcmcjpeg", "+e1"), 0),
        (jpeg("dcmcjpls", "+il"), 0),
        (jpeg("dcmcjpls", "+is"), 0),
        (jpeg("dcmcjpls", "+in"), 0),
        (jpeg("dcmcrle"), 0),
        (jpeg_2000, 0),
    ],
    ids=["baseline", "lossless", "JPEG-LS by line", "JPEG-LS by sample", "JPEG-LS by plane", "RLE", "JPEG 2000"],
)
def test_planar_configuration_moves_no_sample_of_a_compressed_frame(
    compress: Callable[[Path, Path], None], most: int, planar: int, tmp_path: Path
) -> None:
    plain, path = saved(picture(COLOURED), tmp_path / "plain.dcm"), tmp_path / "compressed.dcm"
    compress(plain, path)
    dataset = pydicom.dcmread(path)
    assert dataset.file_meta.TransferSyntaxUID.is_encapsulated
    dataset.PlanarConfiguration = planar
    dataset.save_as(path)
    found = read_image(path).values.astype(int)
    assert np.abs(found - COLOURED).max() <= most
    theirs = rendered(path, tmp_path / "picture.pnm")
    if theirs is not None:
        assert np.abs(found - theirs).max() <= 2  # two inverse cosine transforms


@pytest.mark.parametrize("bits", [1, 5, 7])
def test_colour_of_fewer_bits_is_as_bright_as_dcmtk_shows_it(bits: int, tmp_path: Path) -> None:
    path = saved(picture(COLOURED >> (8 - bits), BitsStored=bits, HighBit=bits - 1), tmp_path / "image.dcm")
    assert difference(path, tmp_path / "picture.pnm") == [pytest.approx(0, abs=1)]


def test_ybr_of_fewer_bits_is_refused() -> None:
    with pytest.raises(DecodeError, match="BitsStored"):
        read_image(picture(COLOURED >> 1, BitsStored=7, HighBit=6, PhotometricInterpretation="YBR_FULL"))
