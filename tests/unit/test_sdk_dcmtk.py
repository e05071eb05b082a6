"""Decoded and windowed images agree with another implementation: dcmtk's dcmj2pnm."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from support.datasets import item, make
from support.dcmtk import difference, rendered, saved

from radserve.dicom import read_image
from radserve.errors import RadserveError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DATA = Path(pydicom.__file__).parent / "data"
NOT_DICOM = {".py", ".pyc", ".json", ".icc", ".txt"}
FILES = [path for path in sorted(DATA.rglob("*")) if path.is_file() and path.suffix not in NOT_DICOM]
# dcmtk swaps the 16-bit halves of these files' 32-bit pixels; their little endian twins agree.
SWAPPED_BY_DCMTK = {"rtdose_expb.dcm", "rtdose_expb_1frame.dcm"}
# What dcmtk renders and we refuse, and why.
REFUSED = {"badVR.dcm": "NumberOfFrames is no number"}
RENDERED_AT_LEAST = 75


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int] | None]:
    """By file: for every frame and window that dcmtk renders; None where it does and we refuse."""
    picture = tmp_path_factory.mktemp("dcmtk") / "picture.pnm"
    found: dict[str, list[int] | None] = {}
    for path in FILES:
        try:
            found[path.name] = difference(path, picture)
        except RadserveError:  # noqa: PERF203 - one file at a time
            if rendered(path, picture) is not None:
                found[path.name] = None
    return found


def test_every_frame_in_every_window_agrees_with_dcmtk_within_one_grey_level(
    differences: dict[str, list[int] | None],
) -> None:
    assert {name for name, found in differences.items() if found and max(found) > 1} == SWAPPED_BY_DCMTK
    assert sum(bool(found) for found in differences.values()) >= RENDERED_AT_LEAST
    several = {name for name, found in differences.items() if found and len(found) > 1}
    assert several >= {"rtdose.dcm", "examples_ybr_color.dcm", "SC_rgb_rle_2frame.dcm"}


def test_whatever_dcmtk_renders_is_read(differences: dict[str, list[int] | None]) -> None:
    assert {name for name, found in differences.items() if found is None} == REFUSED.keys()


def test_the_files_that_dcmtk_swaps_agree_with_their_little_endian_twins() -> None:
    for name in SWAPPED_BY_DCMTK:
        (path,) = [path for path in FILES if path.name == name]
        np.testing.assert_array_equal(
            read_image(path, frame=0).values, read_image(path.with_name(name.replace("_expb", "")), frame=0).values
        )


def radiograph(**attributes: Any) -> Dataset:
    """64 x 64 values of 12 bits in two frames, smooth but for a little noise."""
    rows, columns = np.mgrid[:64, :64]
    noise = np.random.default_rng(1).integers(0, 40, (2, 64, 64))
    values = (rows * 30 + columns * 30 + noise).astype("<u2")
    standard = {"Rows": 64, "Columns": 64, "NumberOfFrames": 2, "BitsStored": 12, "HighBit": 11}
    return make(**{**standard, "Modality": "DX", "PixelData": values.tobytes(), **attributes})


LUT = {"LUTDescriptor": [4096, 0, 16], "LUTData": np.array([16 * v**2 // 4095 for v in range(4096)], "<u2").tobytes()}


@pytest.mark.parametrize(
    ("attributes", "renderings"),
    [
        ({"WindowCenter": [1000, 2000, 3000], "WindowWidth": [500, 1000, 4000]}, 6),
        ({"WindowCenter": 1900, "WindowWidth": 700, "VOILUTFunction": "SIGMOID"}, 2),
        ({"VOILUTSequence": [item(**LUT), item(**LUT)], "WindowCenter": 1500, "WindowWidth": 900}, 6),
        ({"VOILUTSequence": [item(**LUT)], "PhotometricInterpretation": "MONOCHROME1"}, 2),
        ({"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 1500, "WindowWidth": 3000}, 2),
        ({"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 1500, "WindowWidth": 900}, 2),
    ],
)
def test_windows_and_luts_of_both_frames_agree(attributes: dict[str, Any], renderings: int, tmp_path: Path) -> None:
    path = saved(radiograph(**attributes), tmp_path / "image.dcm")
    found = difference(path, tmp_path / "picture.pnm")
    assert len(found) == renderings
    assert max(found) <= 1


@pytest.mark.parametrize("process", ["+el", "+e1", "+ee", "+eb"])
def test_jpeg_by_dcmtk_is_decoded_as_dcmtk_does(process: str, tmp_path: Path) -> None:
    names = ("plain.dcm", "compressed.dcm", "again.dcm")
    plain, compressed, again = (tmp_path / name for name in names)
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": bytes(range(256)) * 32}
    saved(radiograph(**(eight if process == "+eb" else {})), plain)
    subprocess.run(["dcmcjpeg", process, str(plain), str(compressed)], check=True)  # noqa: S603, S607 - dcmtk's
    subprocess.run(["dcmdjpeg", str(compressed), str(again)], check=True)  # noqa: S603, S607 - dcmtk's
    assert pydicom.dcmread(compressed).file_meta.TransferSyntaxUID.is_encapsulated
    for index in (0, 1):
        ours, theirs = (read_image(path, frame=index).values for path in (compressed, again))
        assert np.abs(ours - theirs).max() <= (1 if process == "+eb" else 0)


@pytest.mark.parametrize("lossless", [True, False])
def test_jpeg_ls_by_dcmtk_is_decoded_as_dcmtk_does(lossless: bool, tmp_path: Path) -> None:  # noqa: FBT001 - pytest's
    plain, compressed, again = (tmp_path / name for name in ("plain.dcm", "compressed.dcm", "again.dcm"))
    saved(radiograph(), plain)
    subprocess.run(["dcmcjpls", "+el" if lossless else "+en", str(plain), str(compressed)], check=True)  # noqa: S603, S607 - dcmtk's
    subprocess.run(["dcmdjpls", str(compressed), str(again)], check=True)  # noqa: S603, S607 - dcmtk's
    for index in (0, 1):
        ours, theirs = (read_image(path, frame=index).values for path in (compressed, again))
        np.testing.assert_array_equal(ours, theirs)


def test_overlays_are_ignored(tmp_path: Path) -> None:
    plain = radiograph()
    expected = [read_image(plain, frame=index).values for index in (0, 1)]
    apart = radiograph()
    for element, vr, value in (
        (0x0010, "US", 64),
        (0x0011, "US", 64),
        (0x0040, "CS", "G"),
        (0x0050, "SS", [1, 1]),
        (0x0100, "US", 1),
        (0x0102, "US", 0),
        (0x3000, "OW", b"\xff" * 512),
    ):
        apart.add_new(0x60000000 + element, vr, value)
    embedded = radiograph(PixelData=(np.frombuffer(plain.PixelData, "<u2") | 0x8000).tobytes())
    for element, vr, value in ((0x0010, "US", 64), (0x0011, "US", 64), (0x0100, "US", 16), (0x0102, "US", 15)):
        embedded.add_new(0x60000000 + element, vr, value)
    for number, dataset in enumerate((apart, embedded)):
        path = saved(dataset, tmp_path / f"{number}.dcm")
        for index in (0, 1):
            np.testing.assert_array_equal(read_image(path, frame=index).values, expected[index])
        assert max(difference(path, tmp_path / "picture.pnm")) <= 1
