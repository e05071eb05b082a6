"""Pixels that hold no measured value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.datasets import make

from radserve.dicom import read_image


def counted(**attributes: Any) -> list[bool]:
    """Whether each of the pixels counts."""
    valid = read_image(make(Modality="OT", **attributes)).valid
    return [True] * 16 if valid is None else [bool(each) for each in valid.ravel()]


@pytest.mark.parametrize(
    ("lowest", "padding", "bits"),
    [
        (-2000, 63536, 16),
        (-2000, -2000, 16),
        (-32768, 32768, 16),
        (-2000, 63536, 32),
        (-100, -100, 8),
        (-100, 65436, 8),  # the element has 16 bits, whatever a pixel has
        (-100, 156, 8),
        (-128, 128, 8),
    ],
)
def test_pixel_padding_is_found_even_with_the_wrong_sign(lowest: int, padding: int, bits: int) -> None:
    data = np.array([lowest] * 8 + [5] * 8, dtype=f"<i{bits // 8}").tobytes()
    dataset = make(PixelRepresentation=1, PixelData=data, BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1)
    dataset.add_new("PixelPaddingValue", "US" if padding > 0 else "SS", padding)
    valid = read_image(dataset).valid
    assert valid is not None
    assert valid.ravel().tolist() == [False] * 8 + [True] * 8


@pytest.mark.parametrize(("value", "limit"), [(3, 6), (6, 3)])
def test_a_range_of_padding_has_either_end_first(value: int, limit: int) -> None:
    found = counted(PixelPaddingValue=value, PixelPaddingRangeLimit=limit)
    assert found == [True] * 3 + [False] * 4 + [True] * 9


def test_a_range_of_padding_may_be_negative() -> None:
    pixels = np.arange(-8, 8, dtype="<i2").tobytes()
    dataset = {"PixelRepresentation": 1, "PixelData": pixels, "PixelPaddingValue": -8, "PixelPaddingRangeLimit": -5}
    assert counted(**dataset) == [False] * 4 + [True] * 12


@pytest.mark.parametrize(("kind", "dtype", "bits"), [("Float", "<f4", 32), ("DoubleFloat", "<f8", 64)])
def test_floating_point_pixels_have_padding_of_their_own(kind: str, dtype: str, bits: int) -> None:
    values = np.arange(16, dtype=dtype) + np.array(0.1, dtype)
    standard = {
        "PixelData": None,
        f"{kind}PixelData": values.tobytes(),
        "BitsAllocated": bits,
        "PixelPaddingValue": 1,  # of integers
    }
    assert counted(**standard) == [True] * 16
    one = {**standard, f"{kind}PixelPaddingValue": float(values[3])}
    assert counted(**one) == [True] * 3 + [False] + [True] * 12
    several = {**one, f"{kind}PixelPaddingRangeLimit": float(values[0])}
    assert counted(**several) == [False] * 4 + [True] * 12
