"""Modality values to display values in [0, 1] (PS3.3 C.11.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from radserve.errors import DecodeError
from radserve.sources import VoiLut, VoiWindow

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
            can divide by, or the function is none of the standard's.
    """
    if isinstance(window, VoiLut):
        place = np.clip(np.rint(values).astype(np.int64) - window.first, 0, len(window.table) - 1)
        entries: NDArray[np.float32] = window.table[place].astype(np.float32)
        return np.minimum(entries / np.float32(2**window.bits - 1), np.float32(1))
    center, width = window.center, window.width
    if window.function == "LINEAR":
        if width < 1:
            msg = "WindowWidth is below 1 (PS3.3 C.11.2.1.2.1)"
            raise DecodeError(msg)
        if width == 1:
            step: NDArray[np.float32] = (values > center - 0.5).astype(np.float32)
            return step
        return _ramp(values, center - 0.5, width - 1)
    if width <= 0:
        msg = "WindowWidth is not above 0 (PS3.3 C.11.2.1.3)"
        raise DecodeError(msg)
    if window.function == "LINEAR_EXACT":
        if _is_step(width):
            msg = "WindowWidth is too small to divide by"
            raise DecodeError(msg)
        return _ramp(values, center, width)
    if window.function == "SIGMOID":
        exponent = np.clip(-4 * (values.astype(np.float64) - center) / width, -700, 700)  # exp() stays finite
        sigmoid: NDArray[np.float32] = (1 / (1 + np.exp(exponent))).astype(np.float32)
        return sigmoid
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
    return 1 / width > float(np.finfo(np.float32).max)


def _ramp(values: NDArray[np.floating[Any]], center: float, width: float) -> NDArray[np.float32]:
    display = (values - np.float32(center)) * np.float32(1 / width) + np.float32(0.5)
    clipped: NDArray[np.float32] = np.clip(display, 0, 1).astype(np.float32, copy=False)
    return clipped
