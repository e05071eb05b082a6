"""Reports of every file that pydicom ships: valid whatever the source is, or refused with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydicom
import pytest
from pydicom.uid import SecondaryCaptureImageStorage
from support.answers import classification, drawn, segmentation
from support.datasets import TEST_FILES
from support.validators import errors_of

from radserve.errors import DicomError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import Dataset

LEAST_MAP = 12


def readable(path: Path) -> Dataset | None:
    try:
        file = pydicom.dcmread(path)
        int(file.get("NumberOfFrames") or 1)
    except Exception:  # noqa: BLE001 - how pydicom fails is its own tests' business
        return None
    return file if "SOPInstanceUID" in file and ("Rows" in file or "WaveformSequence" in file) else None


def attempts(path: Path, file: Dataset) -> dict[str, Callable[[], Dataset]]:
    frames = (1,) if int(file.get("NumberOfFrames") or 1) > 1 else ()
    # Frames of a class that has one each: whatever names one of them is wrong to dciodvfy, as the file is.
    if frames and file.SOPClassUID == SecondaryCaptureImageStorage:
        return {}
    answer = classification(file, frames=frames)
    reports = {"SR": lambda: answer.to_dicom_sr(path), "SC": lambda: answer.to_secondary_capture(path)}
    rows, columns = file.get("Rows", 0), file.get("Columns", 0)
    # One UID for two things is wrong in the file, and would be in whatever lies in its frame of reference.
    unlike = file.get("StudyInstanceUID") != file.get("FrameOfReferenceUID")
    if min(rows, columns) > LEAST_MAP and unlike:
        drawing = segmentation(drawn(rows, columns), file, frames=frames)
        reports["SEG"] = lambda: drawing.to_dicom_seg(path)
    return reports


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:::pydicom")  # of reading files that are wrong on purpose
def test_reports_of_real_files_are_valid(tmp_path: Path) -> None:
    valid = dict.fromkeys(("SR", "SC", "SEG"), 0)
    for path in sorted(TEST_FILES.parent.rglob("*")):
        file = readable(path) if path.is_file() else None
        if file is None:
            continue
        for kind, attempt in attempts(path, file).items():
            try:
                report = attempt()
            except DicomError:
                continue
            assert errors_of(report, tmp_path) == [], (kind, path.name)
            valid[kind] += 1
    assert valid["SR"] >= 95
    assert valid["SC"] >= 90
    assert valid["SEG"] >= 70, valid
