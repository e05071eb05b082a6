"""What reading a file costs in memory: its pixels are not copied before they are decoded."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless
from support.datasets import make, to_bytes

from radserve.contracts import FileWindow, ImageInput
from radserve.dicom import open_dicom, read_image
from radserve.preprocess import image_to_wire

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
    return to_bytes(dataset)


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


def test_a_frame_does_not_keep_the_others_in_memory(tmp_path: Path) -> None:
    content = many_frames(ExplicitVRLittleEndian)
    assert peak_bytes(lambda: read_image(content, frame=1)) < 2 * FRAME_BYTES
    path = tmp_path / "many.dcm"
    path.write_bytes(content)
    read_image(path, frame=1)
    tracemalloc.start()
    try:
        image = read_image(path, frame=1)
        gc.collect()  # what pydicom made refers to itself
        assert image.pixels.nbytes == FRAME_BYTES
        assert tracemalloc.get_traced_memory()[0] < 2 * FRAME_BYTES
    finally:
        tracemalloc.stop()


def test_no_floats_are_made_of_a_whole_radiograph() -> None:
    rows, columns = 2048, 1500
    pixels = np.random.default_rng(0).integers(0, 4096, (rows, columns), dtype=np.uint16)
    dataset = make(Rows=rows, Columns=columns, BitsStored=12, HighBit=11, PixelRepresentation=0, Modality="DX")
    dataset.WindowCenter, dataset.WindowWidth, dataset.PixelData = 2000, 3000, pixels.tobytes()
    described = ImageInput(modalities=("DX",), rows=224, columns=224, window=FileWindow())
    assert peak_bytes(lambda: image_to_wire(read_image(dataset), described)) < pixels.nbytes


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
