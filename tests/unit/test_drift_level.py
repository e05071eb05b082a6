"""The one number whose distribution shows that inputs are no longer as they were."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from support.images import image
from support.sdk_contracts import IMAGE, TEXT, WAVEFORM

from radserve.contracts import FixedWindow, PercentileWindow, WholeVolume
from radserve.preprocess import image_to_wire, level

SHARE = msgspec.structs.replace(IMAGE, window=PercentileWindow(lower=1, upper=99))


@pytest.mark.parametrize("dtype", ["UINT8", "UINT16"])
def test_of_a_fixed_window_it_is_the_mean_modality_value(dtype: Any) -> None:
    hounsfield = np.array([[-120.0, 0], [60, 200]]).repeat(2, 0).repeat(2, 1)
    described = msgspec.structs.replace(IMAGE, window=FixedWindow(center=40, width=400), wire_dtype=dtype)
    wire = image_to_wire(image(hounsfield), described)
    assert level(wire, described) == pytest.approx(hounsfield.mean(), abs=400 / 255)


@pytest.mark.parametrize(("photometric", "channels"), [("MONOCHROME2", 1), ("RGB", 3)])
@pytest.mark.parametrize("dtype", ["UINT8", "UINT16"])
def test_of_other_windows_it_is_a_share_of_the_wires_range(dtype: Any, photometric: Any, channels: int) -> None:
    described = msgspec.structs.replace(SHARE, wire_dtype=dtype, photometric=photometric)
    wire = np.zeros((4, 4, channels), dtype.lower())
    assert level(wire, described) == 0
    wire[:] = np.iinfo(wire.dtype).max
    assert level(wire, described) == 1
    wire[:2] = 0
    assert level(wire, described) == 0.5


def test_a_colour_model_has_no_modality_values() -> None:
    described = msgspec.structs.replace(IMAGE, photometric="RGB")
    assert level(np.full((4, 4, 3), 255, np.uint8), described) == 1


def test_the_sum_of_a_large_volume_does_not_overflow() -> None:
    described = msgspec.structs.replace(SHARE, wire_dtype="UINT16", study=WholeVolume(slices=32))
    assert level(np.full((32, 64, 64, 1), 65535, np.uint16), described) == 1


def test_of_a_recording_it_is_the_root_mean_square_in_millivolts() -> None:
    described = msgspec.structs.replace(WAVEFORM, resolution_uv=0.5)
    wire = np.full((1000, 1), -32768, np.int16)
    assert level(wire, described) == pytest.approx(16.384)
    wire[::2] = 0
    assert level(wire, described) == pytest.approx(16.384 / 2**0.5)


def test_of_a_text_it_is_the_number_of_characters() -> None:
    assert level(np.array([["肺炎 no".encode()]], dtype=object), TEXT) == 5


@pytest.mark.parametrize("described", [IMAGE, SHARE, WAVEFORM])
def test_the_batch_axis_makes_no_difference(described: Any) -> None:
    wire = np.arange(16, dtype=np.int16 if described is WAVEFORM else np.uint8)
    assert level(wire.reshape(1, 4, 4, 1), described) == level(wire.reshape(4, 4, 1), described)
