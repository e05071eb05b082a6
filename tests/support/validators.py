"""Judges from outside: dicom3tools' dciodvfy and dcmtk's dsrdump, as the system's packages install them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

_CLEAN, _WITH_ERRORS = 0, 1
# What dsrdump says of UTF-8, which it can nonetheless print.
_OF_ITSELF = "W: The VR checker does not support this Specific Character Set"


def dciodvfy(path: Path) -> list[str]:
    """All that dciodvfy says of a file: the IOD it takes it for, then errors and warnings.

    Its exit status is 0 with some errors, too: only what it says counts.
    """
    said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, check=False)  # noqa: S603, S607 - dicom3tools, on the path
    assert said.returncode in (_CLEAN, _WITH_ERRORS), "dciodvfy did not come to a verdict"
    lines = (said.stdout + said.stderr).decode(errors="replace").splitlines()
    assert lines, "dciodvfy said nothing, not even what the file is"
    return lines


def dciodvfy_errors(path: Path) -> list[str]:
    """What dciodvfy holds to be against the standard; warnings are none."""
    return [line for line in dciodvfy(path) if not line.startswith("Warning") and "rror" in line]


def errors_of(dataset: Dataset, folder: Path) -> list[str]:
    """The same, of a data set as it is written."""
    path = folder / "validated.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return dciodvfy_errors(path)


def dsrdump(path: Path) -> str:
    """A structured report as dcmtk reads it, in UTF-8; fails on anything dcmtk holds to be wrong."""
    said = subprocess.run(["dsrdump", "+U8", "+Pl", "+Pc", str(path)], capture_output=True, text=True, check=False)  # noqa: S603, S607 - dcmtk, on the path
    complaints = [line for line in said.stderr.splitlines() if line and not line.startswith(_OF_ITSELF)]
    assert (said.returncode, complaints) == (0, [])
    return said.stdout
