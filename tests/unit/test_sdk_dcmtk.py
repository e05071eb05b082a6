"""Windowed images agree with another implementation: dcmtk's dcmj2pnm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image as Picture

from radserve.dicom import read_image
from radserve.errors import RadserveError
from radserve.preprocess import apply_window
from radserve.sources import Image, VoiWindow

DATA = Path(pydicom.__file__).parent / "data"
# dcmtk swaps the 16-bit halves of this file's 32-bit pixels; its little endian twin agrees.
SWAPPED_BY_DCMTK = {"rtdose_expb_1frame.dcm"}
# dcmj2pnm decodes neither JPEG 2000 nor JPEG-LS.
NO_CODEC = "Missing attribute"
RENDERED_AT_LEAST = 50


def _monochrome() -> list[tuple[Path, Image]]:
    found = []
    for path in sorted(path for path in DATA.rglob("*") if path.is_file() and path.name not in SWAPPED_BY_DCMTK):
        try:
            image = read_image(path)
        except RadserveError:
            continue
        if image.photometric_interpretation != "RGB":
            found.append((path, image))
    return found


def test_windowed_images_agree_with_dcmtk_within_one_grey_level(tmp_path: Path) -> None:
    dcmj2pnm = shutil.which("dcmj2pnm")
    if dcmj2pnm is None:
        pytest.fail("dcmj2pnm is missing: apt-get install dcmtk")
    picture = tmp_path / "picture.pgm"
    rendered = 0
    for path, image in _monochrome():
        if image.windows:
            window, arguments = image.windows[0], ["+Wi", "1"]
        else:
            low, high = float(image.values.min()), float(image.values.max())
            window = VoiWindow(center=round((low + high) / 2), width=max(2, round(high - low)))
            arguments = ["+Ww", str(window.center), str(window.width)]
        command = [dcmj2pnm, "--quiet", "--no-overlays", "--write-raw-pnm", *arguments, str(path), str(picture)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed program
        if done.returncode:
            assert NO_CODEC in done.stderr, path.name
            continue
        rendered += 1
        display = apply_window(image.values.astype(np.float32), window)
        if image.photometric_interpretation == "MONOCHROME1":
            display = 1 - display
        theirs = np.asarray(Picture.open(picture)).astype(int)
        assert np.abs(np.rint(display * 255).astype(int) - theirs).max() <= 1, path.name
    assert rendered >= RENDERED_AT_LEAST
