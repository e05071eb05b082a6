"""DICOM data sets made in memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from radserve.errors import RadserveError

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(pydicom.__file__).parent / "data"
TEST_FILES = DATA / "test_files"
SHIPPED = sorted(
    path for path in DATA.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc", ".json", ".icc", ".txt"}
)
"""All files that pydicom ships."""
CANARY = "ZZCANARYZZ"


def item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def make(**attributes: Any) -> Dataset:
    """A 4 x 4 16-bit image, with attributes changed; None removes one."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    standard = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": "1.2.3",
        "Modality": "CT",
        "Rows": 4,
        "Columns": 4,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "PixelData": np.arange(16, dtype="<u2").tobytes(),
    }
    for keyword, value in {**standard, **attributes}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    return dataset


def first_frame(name: str) -> tuple[Dataset, bytes]:
    """A data set that pydicom ships, and its first compressed frame."""
    dataset = pydicom.dcmread(TEST_FILES / name)
    return dataset, next(generate_frames(dataset.PixelData, number_of_frames=1))


def compressed(syntax: UID, *frames: bytes, **attributes: Any) -> Dataset:
    """A 16 x 16 image in one fragment a frame."""
    dataset = make(**{"Rows": 16, "Columns": 16, "PixelData": encapsulate(list(frames)), **attributes})
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def to_bytes(dataset: Dataset) -> bytes:
    """A file of it."""
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def attempt(read: Callable[[Any], object], source: object) -> object:
    """What a reader gives, or the typed error that it refuses with."""
    try:
        return read(source)
    except RadserveError as error:
        return error
