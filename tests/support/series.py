"""Series of slices made in memory, and phantoms on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from support.datasets import item, make

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def stack(
    values_zyx: NDArray[Any],
    *,
    spacing_mm: tuple[float, float, float] = (5.0, 1.0, 1.0),
    orientation: Sequence[float] = AXIAL,
    position_mm: Sequence[float] = (-10.0, -20.0, 30.0),
    **changed: Any,
) -> list[Dataset]:
    """CT slices of one series, the first of the volume first.

    Args:
        values_zyx: HU, from 0 to 65535.
        spacing_mm: Between slices, rows and columns.
        orientation: Image Orientation (Patient).
        position_mm: Image Position (Patient) of the first slice.
        changed: Attributes of all slices.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    count, rows, columns = values_zyx.shape
    return [
        make(
            **{
                "Rows": rows,
                "Columns": columns,
                "PixelData": values_zyx[number].astype("<u2").tobytes(),
                "SeriesInstanceUID": "1.2.840.1",
                "SOPInstanceUID": f"1.2.840.2.{number + 1}",
                "FrameOfReferenceUID": "1.2.840.3",
                "InstanceNumber": count - number,  # not the order in the patient
                "ImageOrientationPatient": list(orientation),
                "ImagePositionPatient": [float(x) for x in position_mm + spacing_mm[0] * number * normal],
                "PixelSpacing": [spacing_mm[1], spacing_mm[2]],
                "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
                **changed,
            }
        )
        for number in range(count)
    ]


def enhanced(slices: Sequence[Dataset]) -> Dataset:
    """The same slices as one multi-frame file with functional groups (PS3.3 C.7.6.16)."""
    first = slices[0]
    whole = make(
        Rows=first.Rows,
        Columns=first.Columns,
        NumberOfFrames=len(slices),
        PixelData=b"".join(one.PixelData for one in slices),
        FrameOfReferenceUID="1.2.840.3",
    )
    measures = item(PixelSpacing=first.PixelSpacing)
    whole.SharedFunctionalGroupsSequence = [item(PixelMeasuresSequence=[measures])]
    whole.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=one.ImagePositionPatient)],
            PlaneOrientationSequence=[item(ImageOrientationPatient=one.ImageOrientationPatient)],
        )
        for one in slices
    ]
    return whole
