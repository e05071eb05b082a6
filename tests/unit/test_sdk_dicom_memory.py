"""What reading a file costs in memory: its pixels are not copied before they are decoded."""

from __future__ import annotations

import io
import tracemalloc
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless
from support.datasets import make

from radserve.dicom import open_dicom, read_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS, COLUMNS, FRAMES = 512, 512, 40
FRAME_BYTES = 2 * ROWS * COLUMNS


def many_frames(syntax: UID) -> bytes:
    pixels = bytes(FRAME_BYTES * FRAMES)
    if syntax.is_encapsulated:  # only its length matters: it is not decoded
        pixels = encapsulate([bytes(FRAME_BYTES)] * FRAMES)
    dataset = make(Rows=ROWS, Columns=COLUMNS, NumberOfFrames=FRAMES, PixelData=pixels)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def peak_bytes(work: Callable[[], object]) -> int:
    work()
    tracemalloc.start()
    try:
        kept = work()
        assert kept is not None
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_content_is_opened_without_a_copy_of_it(syntax: UID) -> None:
    content = many_frames(syntax)
    assert peak_bytes(lambda: open_dicom(content)) < FRAME_BYTES


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_file_is_held_once(syntax: UID, tmp_path: Path) -> None:
    path = tmp_path / "many.dcm"
    path.write_bytes(many_frames(syntax))
    assert peak_bytes(lambda: open_dicom(path)) < FRAME_BYTES * (FRAMES + 2)


def test_one_frame_of_many_costs_its_own_size() -> None:
    content = many_frames(ExplicitVRLittleEndian)
    # float32 values, and what is on the way to them.
    assert peak_bytes(lambda: read_image(content, frame=3)) < 4 * FRAME_BYTES


RGB = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}


@pytest.mark.parametrize("attributes", [{}, {**RGB, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "Rows": 2}])
def test_an_image_is_the_callers_own(attributes: dict[str, Any]) -> None:
    values = read_image(make(**attributes, PixelData=bytes(32))).values
    assert values.flags.writeable
