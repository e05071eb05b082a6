"""Modality values to display values in [0, 1] (PS3.3 C.11.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from radserve.errors import DecodeError
from radserve.sources import VoiLut, VoiWindow

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK_SAMPLES = 2**16  # what is computed on the way to display values stays in the processor's cache
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def apply_window(values: NDArray[np.floating[Any]], window: VoiWindow | VoiLut) -> NDArray[np.float32]:
    """Apply a VOI window or LUT.

    Args:
        values: Modality values, any shape.
        window: LINEAR (C.11.2.1.2.1), SIGMOID (C.11.2.1.3.1), LINEAR_EXACT
            (C.11.2.1.3.2) or a table (C.11.2.1.1).

    Returns:
        Display values in [0, 1], float32, same shape.

    Raises:
        DecodeError: The width is below what the standard allows or float32
            can divide by, center or width are more than it holds, or the
            function is none of the standard's.
    """
    display = np.empty(values.shape, np.float32)
    rows = max(1, _BLOCK_SAMPLES * len(values) // max(1, values.size))
    for start in range(0, len(values), rows):
        _apply_window(values[start : start + rows], window, display[start : start + rows])
    return display


def _apply_window(values: NDArray[np.floating[Any]], window: VoiWindow | VoiLut, display: NDArray[np.float32]) -> None:
    if isinstance(window, VoiLut):
        entries = window.of(np.rint(values)).astype(np.float32)
        np.minimum(entries / np.float32(2**window.bits - 1), np.float32(1), out=display)
        return
    center, width = window.center, window.width
    if window.function == "LINEAR":
        if width < 1:
            msg = "WindowWidth is below 1 (PS3.3 C.11.2.1.2.1)"
            raise DecodeError(msg)
        if width == 1:
            display[...] = values > center - 0.5
        else:
            _ramp(values, center - 0.5, width - 1, display)
        return
    if width <= 0:
        msg = "WindowWidth is not above 0 (PS3.3 C.11.2.1.3)"
        raise DecodeError(msg)
    if window.function == "LINEAR_EXACT":
        if _is_step(width):
            msg = "WindowWidth is too small to divide by"
            raise DecodeError(msg)
        _ramp(values, center, width, display)
    elif window.function == "SIGMOID":
        exponent = np.clip(-4 * (values.astype(np.float64) - center) / width, -700, 700)  # exp() stays finite
        display[...] = 1 / (1 + np.exp(exponent))
    else:
        msg = "VOILUTFunction is none of LINEAR, LINEAR_EXACT and SIGMOID (PS3.3 C.11.2.1.3)"
        raise DecodeError(msg)


def percentile_window(values: NDArray[np.float32], percentiles: tuple[float, float]) -> VoiWindow | None:
    """The window that spreads the values between two percentiles over [0, 1].

    Args:
        values: The modality values that count, any shape.
        percentiles: Lower and upper, 0 to 100.

    Returns:
        None where the values have no contrast: both percentiles coincide.
    """
    low, high = np.percentile(values, percentiles) if values.size else (0.0, 0.0)
    if not high > low or _is_step(float(high - low)):
        return None
    return VoiWindow(center=float(low + high) / 2, width=float(high - low), function="LINEAR_EXACT")


def _is_step(width: float) -> bool:
    """Whether the slope of a ramp this wide is more than float32 holds."""
    return 1 / width > _FLOAT32_MAX


def _ramp(values: NDArray[np.floating[Any]], center: float, width: float, display: NDArray[np.float32]) -> None:
    slope = np.float32(1 / width)
    if abs(center) > _FLOAT32_MAX or not slope:  # infinity times 0 would be no number
        msg = "WindowCenter or WindowWidth is more than any pixel's value can be"
        raise DecodeError(msg)
    ramp = values - np.float32(center)
    ramp *= slope
    ramp += np.float32(0.5)
    np.clip(ramp, 0, 1, out=display)
