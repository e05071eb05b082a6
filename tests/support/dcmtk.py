"""Images as dcmtk's dcmj2pnm renders them, and how far ours are from that."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from PIL import Image as Picture

from radserve.dicom import read_image
from radserve.preprocess import apply_window
from radserve.sources import Image, VoiLut, VoiWindow

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset


def rendered(path: Path, picture: Path, *arguments: str) -> NDArray[np.int64] | None:
    """What dcmtk makes of one frame; None where it cannot."""
    program = shutil.which("dcmj2pnm")
    if program is None:
        pytest.fail("dcmj2pnm is missing: apt-get install dcmtk")
    command = [program, "--quiet", "--no-overlays", "--write-raw-pnm", *arguments, str(path), str(picture)]
    if subprocess.run(command, capture_output=True, check=False).returncode:  # noqa: S603 - fixed program
        return None
    levels: NDArray[np.int64] = np.asarray(Picture.open(picture)).astype(np.int64)
    return levels


def windows(image: Image) -> list[tuple[VoiWindow | VoiLut, tuple[str, ...]]]:
    """Every window and VOI LUT of the file, or one over all its values, and dcmtk's words for it."""
    luts = [voi for voi in image.windows if isinstance(voi, VoiLut)]
    linear = [voi for voi in image.windows if isinstance(voi, VoiWindow)]
    found: list[tuple[VoiWindow | VoiLut, tuple[str, ...]]] = []
    found += [(voi, ("+Wl", str(number))) for number, voi in enumerate(luts, 1)]
    found += [(voi, ("+Wi", str(number))) for number, voi in enumerate(linear, 1)]
    if found:
        return found
    low, high = float(image.values.min()), float(image.values.max())
    window = VoiWindow(center=round((low + high) / 2), width=max(2, round(high - low)))
    return [(window, ("+Ww", str(window.center), str(window.width)))]


def display(image: Image, voi: VoiWindow | VoiLut) -> NDArray[np.int64]:
    """Grey levels of a monochrome image, 0 to 255."""
    shown = apply_window(image.values.astype(np.float32), voi)
    if image.photometric_interpretation == "MONOCHROME1":
        shown = 1 - shown
    levels: NDArray[np.int64] = np.rint(shown * 255).astype(np.int64)
    return levels


@cache
def frames(path: Path) -> int:
    try:
        return int(pydicom.dcmread(path, stop_before_pixels=True).get("NumberOfFrames") or 1)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it has no further frames
        return 1


def difference(path: Path, picture: Path) -> list[int]:
    """Largest difference in grey levels, for frames throughout the file and every window that dcmtk renders."""
    found = []
    count = frames(path)
    for index in range(0, count, max(1, count // 4)):
        image = read_image(path, frame=index)
        selected = ("+F", str(index + 1))
        if image.photometric_interpretation == "RGB":
            choices: list[tuple[NDArray[Any], tuple[str, ...]]] = [(image.values.astype(np.int64), ())]
        else:
            choices = [(display(image, voi), arguments) for voi, arguments in windows(image)]
        for ours, arguments in choices:
            theirs = rendered(path, picture, *selected, *arguments)
            if theirs is not None:
                found.append(int(np.abs(ours - theirs).max()))
    return found


def saved(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path
