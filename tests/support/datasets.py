"""DICOM data sets made in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian


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
